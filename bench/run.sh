#!/bin/bash
# run.sh - the table of bench/README.md: ours and each peer in the same run, interleaved. `make bench`.
# Settings: BIN, B (build directory), THREADS, PYTHON (one that has torch 2.x), SHARDS (a directory with
# token shards and a tokeniser of 1024 pieces; out/demo/data, which make demo leaves, when not given).
set -eu
BIN=${BIN:-bin} B=${B:-build} THREADS=${THREADS:-2} PYTHON=${PYTHON:-python3}
export OPENBLAS_CORETYPE=${OPENBLAS_CORETYPE:-SkylakeX}
# OpenBLAS threads spin after a call and would take the core that the other side is measured on.
export OPENBLAS_THREAD_TIMEOUT=4
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT

echo "== matrix products beside OpenBLAS ($OPENBLAS_CORETYPE), then operations by themselves"
for t in 1 $THREADS; do
    "$B/bench/gemm" "$t" 0.5
done
"$B/bench/ops" "$THREADS"

echo "== the baseline model (9 layers, 512 wide, sequence 1024), fp32, $THREADS threads"
SHARDS=${SHARDS:-out/demo/data}
[ -d "$SHARDS" ] || { echo "bench: no token shards at $SHARDS: run make demo first, or set SHARDS"; exit 2; }
recipe="recipes/baseline.conf DATA_PATH=$SHARDS MAX_WALLCLOCK_SECONDS=0 VAL_LOSS_EVERY=0 VAL_MAX_TOKENS=1024"
ours_train() { # batch of sequences
    "$BIN/trainer" $recipe TRAIN_BATCH_TOKENS=$((1024 * $1)) MICRO_BATCH_TOKENS=$((1024 * $1)) ITERATIONS=5 \
        TRAIN_LOG_EVERY=1 --threads "$THREADS" --out "$tmp/run" --quiet
    awk -v t="$THREADS" '/train_loss/ { match($0, /train_time:[0-9]+/)
            ms = substr($0, RSTART + 11, RLENGTH - 11); if (n++) d[n - 1] = ms - last; last = ms }
        END { best = d[1]; for (i in d) if (d[i] < best) best = d[i]; printf "%.6f\n", best / 1000 }' \
        "$tmp/run/train.log"
}
peer() { "$PYTHON" bench/torch_peer.py "$@" 2>/dev/null | tee /dev/stderr | sed -n 's/.*best \([0-9.]*\).*/\1/p'; }
has_torch=$("$PYTHON" -c 'import torch' 2>/dev/null && echo 1 || echo 0)
[ "$has_torch" = 1 ] || echo "(no torch in $PYTHON: set PYTHON; ours alone)"
ratio() { awk -v n="$1" -v o="$2" -v e="$3" -v c="$4" 'BEGIN {
    p = (c > 0 && c < e) || !e ? c : e
    printf "%-28s ours %8.4f s   torch eager %8.4f s   compile %8.4f s   ratio to the better %.2f\n", n, o, e, c, p / o }'; }

for batch in 1 4; do
    ours=$(ours_train $batch) eager=0 comp=0
    if [ "$has_torch" = 1 ]; then
        eager=$(peer train 9 512 8 4 1024 1024 1024 $batch 5 "$THREADS")
        comp=$(peer train 9 512 8 4 1024 1024 1024 $batch 5 "$THREADS" compile)
    fi
    ratio "training step, $batch x 1024" "$ours" "$eager" "$comp"
done

windows=33 # 3,072 positions
ours=$("$BIN/verify" score "$tmp/run/model.safetensors" --data "$SHARDS" --eval sliding --max-tokens 3072 \
    --threads "$THREADS" | sed -n 's/.* \([0-9.]*\) s, .*tokens\/s/\1/p')
ours=$(awk -v s="$ours" -v w=$windows 'BEGIN { printf "%.6f", s / w }')
eager=0 comp=0
if [ "$has_torch" = 1 ]; then
    eager=$(peer slide 9 512 8 4 1024 1024 1024 64 32 "$THREADS" 4)
    comp=$(peer slide 9 512 8 4 1024 1024 1024 64 32 "$THREADS" 4 compile)
fi
ratio "sliding window, stride 64" "$ours" "$eager" "$comp"
