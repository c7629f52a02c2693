#!/bin/bash
# run.sh - everything that needs a graphics card, in one command: `make test-gpu`. Needs the CUDA toolkit
# only; what needs the other libraries of the programs is run when bin/trainer has been built.
#
# Settings by environment: B, BIN  build directory and programs    DATA  shards with their tokeniser, for the
# training runs (default: out/demo/data, which `make demo` leaves)
set -u
B=${B:-build} BIN=${BIN:-bin} DATA=${DATA:-out/demo/data}
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
failed=0
check() { # name, command...
    name=$1
    shift
    if "$@" > "$tmp/out" 2>&1; then
        echo "ok      $name: $(tail -n 1 "$tmp/out")"
    else
        echo "FAILED  $name"
        grep -E 'FAILED|=====|rror' "$tmp/out" | tail -n 30 || tail -n 30 "$tmp/out"
        failed=1
    fi
}
losses() { grep -o 'train_loss:[0-9.]*' "$1/train.log" | cut -d: -f2; }
train() { # name, device
    "$BIN/trainer" recipes/demo.conf DATA_PATH="$DATA" ITERATIONS=20 MAX_WALLCLOCK_SECONDS=0 VAL_MAX_TOKENS=4096 \
        TRAIN_LOG_EVERY=1 QUANT_METHOD=search --device "$2" --out "$tmp/$1" --quiet
}
near() { # the losses of both devices, step by step, to 1 %
    paste <(losses "$tmp/cpu") <(losses "$tmp/one") |
        awk '{ d = $1 - $2; d = d < 0 ? -d : d; if (d > most) most = d; if (d > 0.01 * $1) bad = 1; n++ }
            END { printf "%d steps, at most %.4f nats apart\n", n, most; exit bad || n < 20 }'
}

nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader || {
    echo "no graphics card here"
    exit 4
}
for seed in 1 2 3; do
    check "operations beside the CPU, seed $seed" "$B/tests/gpu/ops_test" --seed "$seed"
done
if command -v compute-sanitizer > "$tmp/where"; then
    for tool in memcheck racecheck initcheck synccheck; do
        check "compute-sanitizer $tool" compute-sanitizer --tool "$tool" --error-exitcode 1 \
            "$B/tests/gpu/ops_test" --small --seed 4
    done
else
    echo "not run: compute-sanitizer is not installed"
fi
if [ -x "$BIN/trainer" ] && ls "$DATA"/*_train_*.bin > "$tmp/where" 2>&1; then
    check "training on the CPU" train cpu cpu
    check "training on the card" train one cuda
    check "the same once more" train two cuda
    check "losses of CPU and card" near
    check "two runs on the card give one model" cmp <(losses "$tmp/one") <(losses "$tmp/two")
else
    echo "not run: training, which needs $BIN/trainer and shards in $DATA (make demo makes both)"
fi
exit $failed
