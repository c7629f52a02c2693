#!/bin/bash
# run.sh - everything that needs a graphics card, in one command: `make test-gpu`. Needs the CUDA toolkit
# only; what needs the other libraries of the programs is run when bin/trainer has been built.
#
# Settings by environment: B, BIN  build directory and programs    DATA  shards with their tokeniser, for the
# training runs (default: out/demo/data, which `make demo` leaves)
set -u
B=${B:-build} BIN=${BIN:-bin} DATA=${DATA:-out/demo/data} FIXTURES=${FIXTURES:-../shared/fixtures/parity}
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
train() { # name, device, setting...
    run=$1 device=$2
    shift 2
    "$BIN/trainer" recipes/demo.conf DATA_PATH="$DATA" ITERATIONS=20 MAX_WALLCLOCK_SECONDS=0 VAL_MAX_TOKENS=4096 \
        TRAIN_LOG_EVERY=1 QUANT_METHOD=search --device "$device" --out "$tmp/$run" --quiet "$@"
}
train_many() { # name, ranks, setting...: a card each
    many=$1 ranks=$2 bad=0 pids=
    shift 2
    for r in $(seq 0 $((ranks - 1))); do
        RANK=$r WORLD_SIZE=$ranks LOCAL_RANK=$r MASTER_ADDR=127.0.0.1 MASTER_PORT=$((20000 + $$ % 10000)) \
            train "$many" cuda "$@" &
        pids="$pids $!"
    done
    for p in $pids; do wait "$p" || bad=1; done
    return $bad
}
near() { # the losses of both devices, step by step, to 1 %
    paste <(losses "$tmp/cpu") <(losses "$tmp/one") |
        awk '{ d = $1 - $2; d = d < 0 ? -d : d; if (d > most) most = d; if (d > 0.01 * $1) bad = 1; n++ }
            END { printf "%d steps, at most %.4f nats apart\n", n, most; exit bad || n < 20 }'
}
played() { # were micro-batches played from a tape, as they should be? A recording that fails is no error.
    grep -o '[0-9]* of [0-9]* micro-batches played.*' "$tmp/one/train.log" |
        awk '{ print; if ($1 > 0) good = 1 } END { exit !good }'
}
used_mlp() { # does a backend that is opened with KERN_MLP=wgmma say so?
    KERN_MLP=wgmma "$B/tests/gpu/ops_test" --small --seed 2 | grep -o 'MLP by wgmma'
}
# A submission scores itself on the card, kernels compiled by the driver: within 2e-4 of the CPU, the same bits twice.
submission() { # --device, file of scores
    "$tmp/sub" --data "$DATA" --max-tokens 65536 --eval "$3" --device "$1" --nll "$tmp/$2"
}
agree() { # the files of two runs' output: the last val_bpb of each
    awk -F '[ :]' '/^final_/ { v[FILENAME] = $5 } END { for (f in v) { d = n++ ? d - v[f] : v[f] }
        d = d < 0 ? -d : d; printf "%.8f bits per byte apart\n", d; exit !(n == 2 && d <= 2e-4) }' "$1" "$2"
}

nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader || {
    echo "no graphics card here"
    exit 4
}
for seed in 1 2 3; do
    check "operations beside the CPU, seed $seed" "$B/tests/gpu/ops_test" --seed "$seed"
done
"$B/tests/gpu/ops_test" --seed 3 > "$tmp/bits1" 2>&1
"$B/tests/gpu/ops_test" --seed 3 > "$tmp/bits2" 2>&1
check "operations have the same bits twice" cmp "$tmp/bits1" "$tmp/bits2"
echo "        $(sed -n 2p "$tmp/bits1")"
if grep -q sm_90 "$tmp/bits1"; then
    check "attention by wgmma is used: it agrees with that by mma" grep -o 'attention by wgmma' "$tmp/bits1"
    for attn in mma wgmma; do
        check "operations, attention by $attn" env KERN_ATTN=$attn "$B/tests/gpu/ops_test" --seed 1
    done
    check "MLP by wgmma is used when asked for: it agrees" used_mlp
    check "operations, MLP by wgmma" env KERN_MLP=wgmma "$B/tests/gpu/ops_test" --seed 1
    if command -v cuobjdump > "$tmp/where" && command -v python3 > "$tmp/where"; then
        check "machine code of attention and MLP" python3 tests/gpu/hgmma.py "$B"/obj/kernels/cuda/{attn,mlp}90*.cu.o
    else
        echo "not run: a look at the machine code, which needs cuobjdump and python3"
    fi
fi
if command -v compute-sanitizer > "$tmp/where"; then
    for tool in memcheck racecheck initcheck synccheck; do
        check "compute-sanitizer $tool" compute-sanitizer --tool "$tool" --error-exitcode 1 \
            "$B/tests/gpu/ops_test" --small --seed 4
    done
else
    echo "not run: compute-sanitizer is not installed"
fi
cards=$(nvidia-smi -L | wc -l)
if [ -x "$B/tests/gpu/comm_test" ]; then
    check "exchanges over NCCL, $cards cards" "$B/tests/gpu/comm_test" "$cards"
else
    echo "not run: exchanges over NCCL, which need nccl.h and built programs"
fi
if [ -x "$B/tests/parity" ] && [ -d "$FIXTURES" ]; then
    check "models of the reference" "$B/tests/parity" --device cuda "$FIXTURES"
else
    echo "not run: models of the reference, which need $B/tests/parity (make parity) and $FIXTURES"
fi
if [ -x "$BIN/trainer" ] && ls "$DATA"/*_train_*.bin > "$tmp/where" 2>&1; then
    check "training on the CPU" train cpu cpu
    check "training on the card" train one cuda
    check "the same once more" train two cuda
    check "losses of CPU and card" near
    check "steps as CUDA graphs" played
    check "two runs on the card give one model" cmp <(losses "$tmp/one") <(losses "$tmp/two")
    if [ "$cards" -gt 1 ]; then
        check "training on 2 cards" train_many one 2 MICRO_BATCH_TOKENS=1024
        check "losses of CPU and 2 cards" near
    fi
    check "a submission with kernels" "$BIN/packer" pack "$tmp/cpu/model.quant.safetensors" --runner cuda -o "$tmp/sub"
    for mode in sliding slot; do
        check "it scores itself on the CPU, $mode" submission cpu nll.cpu "$mode"
        cp "$tmp/out" "$tmp/cpu.txt"
        check "it scores itself on the card, $mode" submission cuda nll.card "$mode"
        cp "$tmp/out" "$tmp/card.txt"
        check "the same once more, $mode" submission cuda nll.again "$mode"
        check "both scores, $mode" agree "$tmp/cpu.txt" "$tmp/card.txt"
        check "the card's bits, twice" cmp "$tmp/nll.card" "$tmp/nll.again"
    done
else
    echo "not run: training, which needs $BIN/trainer and shards in $DATA (make demo makes both)"
fi
exit $failed
