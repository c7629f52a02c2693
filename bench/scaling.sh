#!/bin/bash
# scaling.sh - the tables of docs/scaling.md: bytes that a step of several ranks sends, by the formula and as counted by
# runs on this machine; then the model of a step's time on cards. Needs bin/ and build/bench/scaling.
#
# Settings by environment: BIN, B as for make.
set -u
cd "$(dirname "$0")/.." || exit 1
B=${B:-build} name=scaling
. tests/e2e/lib.sh
. tests/e2e/many.sh
make_data "$dir/data"
make_recipe "$dir/tiny.conf"
larger="NUM_LAYERS=6 MODEL_DIM=192 NUM_HEADS=6 NUM_KV_HEADS=3 MLP_MULT=3"

row() { # ranks, how, then settings
    n=$1 by=$2
    shift 2
    set -- "$@" MICRO_BATCH_TOKENS=32 ITERATIONS=5 WARMDOWN_ITERS=1
    rm -rf "$dir/run"
    launch "$by" "$n" "$BIN/trainer" "$dir/tiny.conf" DATA_PATH="$dir/data" --threads 1 --out "$dir/run" --quiet "$@"
    [ $status = 0 ] || { fail "$n ranks: $(cat "$dir/all.err")"; return; }
    # shellcheck disable=SC2046
    set -- $("$B/bench/scaling" volume "$n" "$dir/tiny.conf" "$@") \
        $(sed -n 's/.*sent:\([0-9]*\) received:\([0-9]*\) .*/\1 \2/p' "$dir/run/train.log")
    [ "$6 $7" = "${14} ${15}" ] || fail "$n ranks, $by: predicted $6 $7, counted ${14} ${15}"
    echo "| $2 | $n, $by | $4 | $6, $7 | ${14}, ${15} |"
}

echo "| parameters | ranks | sums | sent, received by rank 0 per step: formula | counted |"
echo "|---|---|---|---|---|"
for how in $launchers; do
    for ranks in 2 3 4 7; do
        row $ranks $how
        # shellcheck disable=SC2086
        row $ranks $how $larger
    done
done
for batch in "MICRO_BATCH_TOKENS=2048" "MICRO_BATCH_TOKENS=2048 TRAIN_BATCH_TOKENS=1048576" \
    "MICRO_BATCH_TOKENS=16384 TRAIN_BATCH_TOKENS=8388608"; do
    echo
    echo "pr1296, $batch"
    # shellcheck disable=SC2086
    "$B/bench/scaling" model recipes/pr1296.conf $batch
done
exit $failed
