#!/bin/sh
# ablate.sh - what each switch is worth in bits per byte: one small twin trained again with one setting
# changed, everything else and the seed the same, as `make ablate` runs it. The figure is the trainer's
# val_bpb of the averaged weights before quantisation; three seeds of the unchanged twin show the noise.
#
# Settings by environment: SHARDS (required), TWIN, OUT, JOBS (runs at a time, one thread each), BIN, STEPS,
# BATCH (tokens per step).
set -eu
export LC_ALL=C
OUT=${OUT:-out/ablate}
BIN=${BIN:-bin}
TWIN=${TWIN:-pr1296}
JOBS=${JOBS:-$(nproc)}
STEPS=${STEPS:-250}
BATCH=${BATCH:-4096}
: "${SHARDS:?say SHARDS=DIR: shards and tokeniser of 1024 pieces}"
mkdir -p "$OUT"

# A run per line: a name, then what differs.
cat > "$OUT/runs" <<'END'
unchanged
seed-2 SEED=2
seed-3 SEED=3
no-xsa XSA_LAST_N=0
no-value-embedding VE_ENABLED=0
no-ln-scale LN_SCALE=0
no-skip-gates SKIP_GATES_ENABLED=0
no-skips UNET_SKIPS=0 SKIP_GATES_ENABLED=0
no-recurrence RECUR_LAYERS=
no-lanes PARALLEL_LANES=off
lanes-of-1204 PARALLEL_LANES=cross
full-rope ROPE_DIMS=32
relu-squared MLP_SLOPE=0
qk-gain-1.5 QK_GAIN_INIT=1.5
muon-without-row-norm MUON_ROW_NORM=0
no-ema EMA_DECAY=0
with-smear-gate SMEAR_GATE=1
with-bigrams BIGRAM_VOCAB_SIZE=1536 BIGRAM_DIM=32
END

# shellcheck disable=SC2016  # expanded by the inner shell
xargs -a "$OUT/runs" -d '\n' -P "$JOBS" -n 1 sh -c '
    set -- $1
    name=$1
    shift
    [ -s "'"$OUT"'/$name/bpb" ] && exit 0
    "'"$BIN"'/trainer" "recipes/'"$TWIN"'-twin.conf" DATA_PATH="'"$SHARDS"'" --out "'"$OUT"'/$name" \
        --threads 1 --quiet ITERATIONS='"$STEPS"' TRAIN_BATCH_TOKENS='"$BATCH"' EVAL_MODE=plain \
        RECUR_START_STEP=$(('"$STEPS"' / 2)) QUANT_METHOD=search PRUNE_TARGET_BYTES=0 "$@" ||
        { echo "$name failed" >&2; exit 1; }
    # The last validation before quantisation: that of the average where there is one.
    grep -E "^(step:|pre-quantization)" "'"$OUT"'/$name/train.log" |
        sed -n "s/.*val_bpb:\([0-9.]*\).*/\1/p" | tail -1 > "'"$OUT"'/$name/bpb"
' sh

awk -v dir="$OUT" '{
    file = dir "/" $1 "/bpb"
    getline bpb < file
    if (NR == 1) base = bpb
    what = $0
    sub(/^[^ ]+ ?/, "", what)
    printf "%-24s %8.4f  %+8.4f  %s\n", $1, bpb, bpb - base, what
}' "$OUT/runs" | tee "$OUT/table"
