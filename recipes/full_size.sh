#!/bin/sh
# full_size.sh - each full-size recipe through every stage on a CPU, as `make full-size` runs it: a few
# training steps with small batches, the recipe's own quantisation and pruning, packing, and the file
# scored by its recipe's own method on a short stream of real text. Shows that everything works at real
# size; says nothing about quality, for which a few steps are no training.
#
# Settings by environment: RECIPES (names), SHARDS (directory with shards of 1024 pieces), TOKENS (scored
# positions), STEPS, OUT, THREADS, BIN.
set -eu
export LC_ALL=C
OUT=${OUT:-out/full-size}
BIN=${BIN:-bin}
THREADS=${THREADS:-$(nproc)}
STEPS=${STEPS:-3}
TOKENS=${TOKENS:-4096}
RECIPES=${RECIPES:-pr1276 pr1263 pr1296 pr1260}
mkdir -p "$OUT"

# Shards of 1024 pieces where they are given; otherwise, and for 4096 pieces always, Debian's English texts.
data_for() {
    if [ "$1" = 1024 ] && [ -n "${SHARDS:-}" ]; then
        echo "$SHARDS"
        return
    fi
    SHARDS=$BIN/shards trainer/data/prepare.sh --vocab "$1" --out "$OUT/sp$1" >&2
    echo "$OUT/sp$1"
}

# Seconds that a command took, behind its name.
stage() {
    name=$1
    shift
    t0=$(date +%s)
    "$@"
    printf '%-10s %-22s %5d s\n' "$recipe" "$name" $(($(date +%s) - t0)) >> "$OUT/times"
}

: > "$OUT/times"
: > "$OUT/scores"
for recipe in $RECIPES; do
    dir=$OUT/$recipe
    vocab=$(sed -n 's/^VOCAB_SIZE=//p' "recipes/$recipe.conf")
    data=$(data_for "$vocab")
    mkdir -p "$dir"
    echo "== $recipe"
    # Fewer tokens per step, the second run of blocks from step 1 on, little calibration, no second
    # undone step; everything else is the recipe's.
    stage train+quantise "$BIN/trainer" "recipes/$recipe.conf" DATA_PATH="$data" --out "$dir" \
        --threads "$THREADS" ITERATIONS="$STEPS" MAX_WALLCLOCK_SECONDS=0 TRAIN_BATCH_TOKENS=4096 \
        LOADER_RANKS=2 WARMUP_STEPS=1 RECUR_START_STEP=1 TRAIN_LOG_EVERY=1 VAL_LOSS_EVERY=0 \
        VAL_MAX_TOKENS=4096 GPTQ_CALIB_BATCHES=2 GPTQ_BATCH_TOKENS=4096 GPTQ_RESERVE_SECONDS=0 \
        TTT_CHUNK_TOKENS=2048
    # Pruning needs the size of the packed record, which the trainer does not know.
    if grep -q '^PRUNE_TARGET_BYTES=[1-9]' "recipes/$recipe.conf"; then
        stage "quantise, prune" "$BIN/packer" quantize "$dir/model.safetensors" --data "$data" \
            -o "$dir/model.quant.safetensors" --threads "$THREADS"
    fi
    stage pack "$BIN/packer" pack "$dir/model.quant.safetensors" -o "$dir/submission"
    stage "score and verify" "$BIN/verify" blob "$dir/submission" --data "$data" --max-tokens "$TOKENS" \
        --threads "$THREADS" --execute > "$dir/verify.txt"
    cat "$dir/verify.txt"
    sed -n "s/^final_/$recipe final_/p" "$dir/verify.txt" >> "$OUT/scores"
done
echo
cat "$OUT/times" "$OUT/scores"
