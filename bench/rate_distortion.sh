#!/bin/sh
# rate_distortion.sh - loss against bytes: QUANTIZER=rd and each of its ingredients alone, beside GPTQ as the
# records pack it (brotli 11) and with this project's coder.
#
#   bench/rate_distortion.sh MODEL.safetensors DATA
#
# DATA is a directory with training shards to calibrate with and a validation shard to measure on. Settings,
# from the environment: TARGETS, bytes of the finished files; ABLATE, those at which the ingredients are tried;
# BITS of GPTQ; CALIB, TOKENS, how many tokens to calibrate with and to measure on; BIN and B, programs and
# objects (`make build/bench/kl` first); OUT, a folder.
#
# Columns: method, bytes of the coded weights (the .ptz of the record; the weight section of the
# submission), KL(float || packed), loss and what was lost in nats per token on the validation text.
set -eu
MODEL=$1 DATA=$2
BIN=${BIN:-bin} B=${B:-build} OUT=${OUT:-out/rd}
TARGETS=${TARGETS:-1000000 1300000 1700000 2200000}
ABLATE=${ABLATE:-1000000 1700000}
TOKENS=${TOKENS:-65536}
CALIB=${CALIB:-65536}
BITS=${BITS:-4 5 6}
mkdir -p "$OUT"
cp "$(dirname "$MODEL")/byte_table.bin" "$OUT/"
cp "$MODEL" "$OUT/model.safetensors"
: > "$OUT/sizes"
: > "$OUT/log"

# Bytes of the weight section of a submission made of a file.
section() {
    "$BIN/packer" pack "$1" -o "$OUT/submission" --codec cm --target-bytes 1000000000 |
        awk '$1 == "weights" { gsub(",", "", $3); print $3 }'
}

for bits in $BITS; do
    q=$OUT/gptq$bits.safetensors
    "$BIN/packer" quantize "$OUT/model.safetensors" -o "$q" --data "$DATA" --quiet QUANTIZER=record \
        QUANT_METHOD=gptq QUANT_BITS=$bits QUANT_EMBED_BITS=8 QUANT_CLIP=row QUANT_SCALE_FLOOR=0 MIXED_QUANT=0 \
        PRUNE_TARGET_BYTES=0 GPTQ_CALIB_BATCHES=1 GPTQ_BATCH_TOKENS="$CALIB" >> "$OUT/log"
    "$BIN/packer" export "$q" -o "$OUT/record.ptz" --compressor brotli >> "$OUT/log"
    echo "$q gptq-int$bits,brotli-11 $(wc -c < "$OUT/record.ptz")" >> "$OUT/sizes"
    echo "$q gptq-int$bits,cm $(section "$q")" >> "$OUT/sizes"
done

# rd NAME TARGET SETTING...
rd() {
    name=$1 target=$2
    shift 2
    q=$OUT/$name.$target.safetensors
    "$BIN/packer" quantize "$OUT/model.safetensors" -o "$q" --data "$DATA" --quiet --target-bytes "$target" \
        RD_CALIB_TOKENS="$CALIB" "$@" >> "$OUT/log"
    echo "$q $name $(section "$q")" >> "$OUT/sizes"
}
for target in $ABLATE; do
    rd rows,plain "$target" RD_STEPS=row RD_STATES=0
    rd rows,trellis "$target" RD_STEPS=row RD_STATES=256
    rd steps,plain "$target" RD_STEPS=fisher RD_STATES=0
    rd steps,trellis,untuned "$target" RD_STEPS=fisher RD_STATES=256 RD_TUNE=0
done
for target in $TARGETS; do
    rd steps,trellis "$target" RD_STEPS=fisher RD_STATES=256
done

val=$(ls "$DATA"/*_val_*.bin | head -n 1)
"$B/bench/kl" "$val" "$TOKENS" "$OUT/model.safetensors" $(cut -d' ' -f1 "$OUT/sizes" | sort -u) > "$OUT/kl"
awk 'NR == FNR { kl[$1] = $3; loss[$1] = $5; lost[$1] = $7; next }
     FNR == 1 { printf "%-26s %10s %10s %10s %10s\n", "method", "bytes", "kl", "loss", "lost" }
     { printf "%-26s %10d %10s %10s %10s\n", $2, $3, kl[$1], loss[$1], lost[$1] }' "$OUT/kl" "$OUT/sizes"
