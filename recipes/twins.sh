#!/bin/sh
# twins.sh - the small twin of each system, trained, packed and verified, as `make twins` runs it.
#
# Settings by environment: SHARDS (directory with shards and tokeniser of 1024 pieces, required), TWINS
# (names), OUT, THREADS, BIN; further KEY=VALUE settings as arguments go to the trainer.
set -eu
export LC_ALL=C
OUT=${OUT:-out/twins}
BIN=${BIN:-bin}
THREADS=${THREADS:-$(nproc)}
TWINS=${TWINS:-pr1276 pr1263 pr1296 pr1260}
: "${SHARDS:?say SHARDS=DIR: shards and tokeniser of 1024 pieces}"
mkdir -p "$OUT"
: > "$OUT/table"
for t in $TWINS; do
    dir=$OUT/$t
    mkdir -p "$dir"
    echo "== $t"
    "$BIN/trainer" "recipes/$t-twin.conf" DATA_PATH="$SHARDS" --out "$dir" --threads "$THREADS" "$@"
    # Pruning needs the size of the packed record, which the trainer does not know.
    if grep -q '^PRUNE_TARGET_BYTES=[1-9]' "recipes/$t-twin.conf"; then
        "$BIN/packer" quantize "$dir/model.safetensors" --data "$SHARDS" --threads "$THREADS" \
            -o "$dir/model.quant.safetensors"
    fi
    "$BIN/packer" pack "$dir/model.quant.safetensors" -o "$dir/submission"
    "$BIN/verify" blob "$dir/submission" --data "$SHARDS" --threads "$THREADS" --execute \
        > "$dir/verify.txt"
    cat "$dir/verify.txt"
    {
        printf '%s: %s bytes, ' "$t" "$(stat -c %s "$dir/submission")"
        tail -1 "$dir/verify.txt"
        sed -n 's/^.*\(val_loss:[0-9.]* val_bpb:[0-9.]*\).*/  \0/p' "$dir/train.log" | tail -3
        sed -n 's/^\(final_\|conditions\)/  \0/p' "$dir/verify.txt"
    } >> "$OUT/table"
done
cat "$OUT/table"
