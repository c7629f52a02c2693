#!/bin/bash
# rate_distortion.sh - loss against bytes for one model: QUANTIZER=rd, and each of its ingredients alone, beside the
# records' own pipelines (GPTQ int6, mixed int5 and int6, pruning; brotli 11) and the same with this project's coder.
#
#   bench/rate_distortion.sh MODEL.safetensors DATA
#
# DATA is a directory with training shards to calibrate with and a validation shard to measure on. byte_table.bin lies
# beside the model. Settings, from the environment:
#
#   PARTS     some of: record curve ablate (all)
#   SHARES    sizes of the curve in percent of the record's int6 file (50 60 70 85 100)
#   ABLATE    the size at which ingredients are tried, in the same percent (70)
#   CALIB     tokens to calibrate with, for all methods (65536)
#   TOKENS    tokens to measure on (131072)
#   OUT       a folder; files that lie there from an earlier run are not made again (out/rd)
#   BIN, B    programs and objects; `make build/bench/kl` first
#
# Columns: bytes of the coded weights (the .ptz of the record; the weight section of the submission),
# KL(float || packed) in nats per token, what was lost in nats per token and in bits per byte of the validation text.
# Then, for each pipeline of a record: how many bytes fewer rd takes at its KL, and how much less it loses at its bytes,
# both from the curve (logarithm of the KL, straight between neighbours; "-" beyond its ends).
set -euo pipefail
export LC_ALL=C
MODEL=$1 DATA=$2
BIN=${BIN:-bin} B=${B:-build} OUT=${OUT:-out/rd}
PARTS=${PARTS:-record curve ablate}
SHARES=${SHARES:-50 60 70 85 100}
ABLATE=${ABLATE:-70}
CALIB=${CALIB:-65536}
TOKENS=${TOKENS:-131072}
mkdir -p "$OUT"
cp "$(dirname "$MODEL")/byte_table.bin" "$OUT/"
cp "$MODEL" "$OUT/model.safetensors"
: > "$OUT/sizes"

# Bytes of the weight section of a submission made of a file, and of all the rest.
section() {
    "$BIN/packer" pack "$1" -o "$OUT/submission" --codec cm --target-bytes 1000000000 |
        awk '{ gsub(",", "") } $1 == "weights" { w = $3 } $1 == "total" { t = $2 } END { print w, t - w }'
}

# note NAME FILE BYTES GROUP
note() { echo "$1 $2 $3 $4" >> "$OUT/sizes"; }

# record NAME SETTING...: as the records do it, whatever the recipe says. Leaves the bytes of the .ptz in $ptz.
record() {
    local name=$1 q=$OUT/$1.safetensors
    shift
    [ -s "$q" ] || "$BIN/packer" quantize "$OUT/model.safetensors" -o "$q" --data "$DATA" --quiet QUANTIZER=record \
        QUANT_METHOD=gptq QUANT_BITS=6 QUANT_EMBED_BITS=8 QUANT_CLIP=tensor QUANT_SCALE_FLOOR=1 MIXED_QUANT=0 \
        PRUNE_TARGET_BYTES=0 GPTQ_CALIB_BATCHES=1 GPTQ_BATCH_TOKENS="$CALIB" COMPRESSOR=brotli COMPRESSOR_LEVEL=11 \
        BYTE_SHUFFLE=2 "$@" > "$q.report"
    "$BIN/packer" export "$q" -o "$OUT/record.ptz" --compressor brotli > /dev/null
    ptz=$(stat -c %s "$OUT/record.ptz")
    note "$name,brotli-11" "$q" "$ptz" record
    note "$name,cm" "$q" "$(section "$q" | cut -d' ' -f1)" record
}

# rd NAME GROUP BYTES SETTING...: BYTES of coded weights.
rd() {
    local name=$1 group=$2 bytes=$3
    shift 3
    local q=$OUT/$name.$bytes.safetensors
    [ -s "$q" ] || "$BIN/packer" quantize "$OUT/model.safetensors" -o "$q" --data "$DATA" --quiet \
        --target-bytes $((bytes + rest)) RD_CALIB_TOKENS="$CALIB" "$@" > "$q.report"
    note "$name" "$q" "$(section "$q" | cut -d' ' -f1)" "$group"
}

record gptq-int6
int6=$ptz
rest=$(section "$OUT/gptq-int6.safetensors" | cut -d' ' -f2)
case " $PARTS " in *" record "*)
    record search-int6 QUANT_METHOD=search
    record gptq-mixed MIXED_QUANT=1 N_INT6_LAYERS=60
    record gptq-int6-pruned PRUNE_TARGET_BYTES=$((int6 * 99 / 100)) PRUNE_SEARCH=once PRUNE_CODE_BYTES=0
    record gptq-int5-free-scales QUANT_BITS=5 QUANT_CLIP=row QUANT_SCALE_FLOOR=0
esac
case " $PARTS " in *" curve "*)
    for share in $SHARES; do
        rd rd curve $((int6 * share / 100))
    done
esac
case " $PARTS " in *" ablate "*)
    at=$((int6 * ABLATE / 100))
    rd rd ablate $at
    rd steps:of-rows,no-trellis ablate $at RD_STEPS=row RD_STATES=0
    rd steps:of-rows ablate $at RD_STEPS=row
    rd steps:of-matrices ablate $at RD_STEPS=matrix
    rd steps:no-row-factor ablate $at RD_STEPS=column
    rd no-feedback ablate $at RD_STEPS=open
    rd no-feedback,no-trellis ablate $at RD_STEPS=open RD_STATES=0
    for states in 0 4 8 16 32 64 128; do
        rd states:$states ablate $at RD_STATES=$states
    done
    rd untuned ablate $at RD_TUNE=0
    for share in 0.25 0.5 1 2; do
        rd tables:x$share ablate $at RD_EMBED_SHARE=$share
    done
    for damp in 0.001 0.1; do
        rd damping:$damp ablate $at GPTQ_DAMP=$damp
    done
    rd calibration:quarter ablate $at RD_CALIB_TOKENS=$((CALIB / 4))
esac

val=$(ls "$DATA"/*_val_*.bin | head -n 1)
# shellcheck disable=SC2046  # names without blanks
"$B/bench/kl" "$val" "$TOKENS" "$OUT/model.safetensors" $(cut -d' ' -f2 "$OUT/sizes" | sort -u) > "$OUT/kl"
awk 'NR == FNR { kl[$1] = $3; lost[$1] = $7; bpb[$1] = $11; next }
     FNR == 1 { printf "%-32s %10s %10s %10s %10s\n", "method", "bytes", "kl", "lost", "bpb_lost" }
     { printf "%-32s %10d %10s %10s %10s\n", $1, $3, kl[$2], lost[$2], bpb[$2] }
     $4 == "curve" { x[++n] = $3; y[n] = log(kl[$2]); l[n] = lost[$2] }
     $4 == "record" { name[++m] = $1; b[m] = $3; k[m] = kl[$2]; a[m] = lost[$2] }
     function between(v, p, q, i) { # of points p[i], q[i]: q at v; "" beyond the ends (by more than 1 in 1000)
         for (i = 1; i <= n; i += n - 1)
             if ((v / p[i] - 1) ^ 2 < 1e-6)
                 return q[i]
         for (i = 1; i < n; i++)
             if ((v - p[i]) * (v - p[i + 1]) <= 0)
                 return q[i] + (v - p[i]) / (p[i + 1] - p[i]) * (q[i + 1] - q[i])
         return ""
     }
     function ratio(v, to) { return v == "" ? "-" : sprintf("%.3fx", v / to) }
     END {
         if (n < 2)
             exit
         printf "\n%-32s %14s %14s %14s\n", "rd against", "bytes, same kl", "kl, same bytes", "lost"
         for (j = 1; j <= m; j++) {
             same = between(log(k[j]), y, x)
             at = between(b[j], x, y)
             printf "%-32s %14s %14s %14s\n", name[j],
                 same == "" ? "-" : sprintf("%+.1f%%", 100 * same / b[j] - 100),
                 ratio(at == "" ? at : exp(at), k[j]), ratio(between(b[j], x, l), a[j])
         }
     }' "$OUT/kl" "$OUT/sizes" | tee "$OUT/table"
