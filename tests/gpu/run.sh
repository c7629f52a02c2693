#!/bin/bash
# run.sh - everything that needs a graphics card, in one command: `make test-gpu`. g++, make and the CUDA toolkit are
# enough; text to train on and to score is made on the spot. A line per check, with its seconds.
#
# Settings by environment:
#   PARTS        some of: ops sanitizer parity train score submission cards
#   B, BIN       build directory, programs (the packer of BIN makes the submission)
#   FIXTURES     recorded results of the reference
#   DATA         shards with their tokeniser of 1,024 pieces, instead of text made on the spot
#   SUBMISSION   a file that `packer pack --runner cuda` made elsewhere, for machines without packer
#   SETTINGS     KEY=VALUE ... of the recipe, behind those of this script
#   TOKENS       how many positions are scored in each mode
#   TOOLS        of compute-sanitizer
set -u
export LC_ALL=C
B=${B:-build} BIN=${BIN:-bin} DATA=${DATA:-} FIXTURES=${FIXTURES:-../shared/fixtures/parity}
PARTS=${PARTS:-ops sanitizer parity train score submission cards} SETTINGS=${SETTINGS:-}
SUBMISSION=${SUBMISSION:-} TOKENS=${TOKENS:-16384} TOOLS=${TOOLS:-memcheck racecheck initcheck synccheck}
T=$B/tests/gpu
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
failed=0
check() { # name, command...: status 1 when it failed
    name=$1 began=$SECONDS
    shift
    if "$@" > "$tmp/out" 2>&1; then
        last=$(tail -n 1 "$tmp/out")
        echo "ok      $name${last:+: $last} ($((SECONDS - began)) s)"
    else
        echo "FAILED  $name ($((SECONDS - began)) s)"
        { grep -E 'FAIL|=====|rror' "$tmp/out" || cat "$tmp/out"; } | tail -n 30
        failed=1
        return 1
    fi
}
not_run() { echo "not run $1"; }

# ---- operations ----
twice() {
    grep -o 'bits [0-9a-f]*$' "$tmp/bits1" && cmp "$tmp/bits1" "$tmp/bits2" && tail -n 1 "$tmp/bits1"
}
used_mlp() { # does a backend that is opened with KERN_MLP=wgmma say so?
    KERN_MLP=wgmma "$T/ops_test" --small --seed 2 | grep -o 'MLP by wgmma'
}
ops() {
    for seed in 1 2 3; do
        check "operations beside the CPU, seed $seed" "$T/ops_test" --seed "$seed"
    done
    "$T/ops_test" --seed 3 > "$tmp/bits1" 2>&1
    "$T/ops_test" --seed 3 > "$tmp/bits2" 2>&1
    check "operations have the same bits twice" twice
    echo "        $(sed -n 2p "$tmp/bits1")"
    grep -q sm_90 "$tmp/bits1" || return
    check "attention by wgmma is used: it agrees with that by mma" grep -o 'attention by wgmma' "$tmp/bits1"
    for attn in mma wgmma; do
        check "operations, attention by $attn" env KERN_ATTN=$attn "$T/ops_test" --seed 1
    done
    check "MLP by wgmma is used when asked for: it agrees" used_mlp
    check "operations, MLP by wgmma" env KERN_MLP=wgmma "$T/ops_test" --seed 1
    if command -v cuobjdump > "$tmp/where" && command -v python3 > "$tmp/where"; then
        check "machine code of attention and MLP" python3 tests/gpu/hgmma.py "$B"/obj/kernels/cuda/{attn,mlp}90*.cu.o
    else
        not_run "a look at the machine code, which needs cuobjdump and python3"
    fi
}

sanitizer() {
    if ! command -v compute-sanitizer > "$tmp/where"; then
        not_run "compute-sanitizer, which is not installed"
        return
    fi
    for tool in $TOOLS; do
        check "compute-sanitizer $tool" compute-sanitizer --tool "$tool" --error-exitcode 1 \
            "$T/ops_test" --small --seed 4
    done
}

parity() {
    if [ -d "$FIXTURES" ]; then
        check "models and steps of the reference" "$T/parity" --device cuda "$FIXTURES"
    else
        not_run "models and steps of the reference, which need $FIXTURES (FIXTURES=DIR)"
    fi
}

# ---- training: a small twin of #1296 with heads of 64, its switches on ----
losses() { grep -o 'train_loss:[0-9.]*' "$1/train.log" | cut -d: -f2; }
weights() { # the tensors of a file, without the header, which holds times
    [ -s "$1/model.safetensors" ] && tail -c +$((9 + $(od -An -tu8 -N8 "$1/model.safetensors"))) "$1/model.safetensors"
}
text() { # sets DATA
    [ -n "$DATA" ] && return
    DATA=$tmp/text
    check "text, made on the spot" "$T/corpus" "$DATA"
}
train_on() { # name, device, setting...
    run=$1 device=$2
    shift 2
    # shellcheck disable=SC2086 # settings are words
    "$T/trainer" recipes/pr1296-twin.conf DATA_PATH="$DATA" MODEL_DIM=256 ROPE_DIMS=16 TRAIN_BATCH_TOKENS=4096 \
        ITERATIONS=24 RECUR_START_STEP=12 EMA_DECAY=0.8 VAL_MAX_TOKENS=4096 TRAIN_LOG_EVERY=1 \
        QUANT_METHOD=search PRUNE_TARGET_BYTES=0 \
        $SETTINGS "$@" --device "$device" --out "$tmp/$run" --quiet && tail -n 1 "$tmp/$run/train.log"
}
on_cpu() { # once, whichever part asks for it
    text
    [ -d "$tmp/cpu" ] || check "training on the CPU" train_on cpu cpu
}
same() { # losses or weights: of runs one and two, which must be there
    "$1" "$tmp/one" > "$tmp/of.one" && "$1" "$tmp/two" > "$tmp/of.two" && [ -s "$tmp/of.one" ] &&
        cmp "$tmp/of.one" "$tmp/of.two" && echo "$(wc -c < "$tmp/of.one") bytes"
}
near() { # the losses of the CPU and another run, step by step, to 1 %
    paste <(losses "$tmp/cpu") <(losses "$tmp/$1") |
        awk '{ d = $1 - $2; d = d < 0 ? -d : d; if (d > most) most = d; if (!(d <= 0.01 * $1)) bad = 1; n++; last = $0 }
            END { printf "%d steps, at most %.4f nats apart, at the end %s\n", n, most, last; exit bad || n < 10 }'
}
played() { # were micro-batches played from a tape, as they should be? A recording that fails is no error.
    grep -o '[0-9]* of [0-9]* micro-batches played.*' "$tmp/one/train.log" |
        awk '{ print; if ($1 > $3 / 2) good = 1 } END { exit !good }'
}
train() {
    check "toy models: training, scoring, twice" "$T/train_test"
    on_cpu
    check "training on the card" train_on one cuda
    check "losses of CPU and card" near one
    check "steps as CUDA graphs" played
    check "the same once more" train_on two cuda
    check "two runs: the same losses" same losses
    check "two runs: the bits of one model" same weights
}

score() {
    on_cpu
    "$T/score_test" "$tmp/cpu/model.safetensors" "$DATA" "$TOKENS" || failed=1
}

# ---- a submission scores itself on the card, kernels compiled by the driver: within 2e-4 of the CPU ----
itself() { # --device, file of scores, mode
    "$tmp/sub" --data "$DATA" --max-tokens "$TOKENS" --eval "$3" --device "$1" --nll "$tmp/$2"
}
agree() { # the files of two runs' output: the last val_bpb of each
    awk -F '[ :]' '/^final_/ { v[FILENAME] = $5 } END { for (f in v) { d = n++ ? d - v[f] : v[f] }
        d = d < 0 ? -d : d; printf "%.8f bits per byte apart\n", d; exit !(n == 2 && d <= 2e-4) }' "$1" "$2"
}
submission() {
    text
    if [ -n "$SUBMISSION" ]; then
        cp "$SUBMISSION" "$tmp/sub" && chmod +x "$tmp/sub"
    elif [ -x "$BIN/packer" ]; then
        on_cpu
        check "a submission with kernels" \
            "$BIN/packer" pack "$tmp/cpu/model.quant.safetensors" --runner cuda -o "$tmp/sub" || return
    else
        not_run "a submission, which needs $BIN/packer (make) or SUBMISSION=FILE"
        return
    fi
    for mode in sliding slot ttt; do
        check "it scores itself on the CPU, $mode" itself cpu nll.cpu "$mode"
        cp "$tmp/out" "$tmp/cpu.txt"
        check "it scores itself on the card, $mode" itself cuda nll.card "$mode"
        cp "$tmp/out" "$tmp/card.txt"
        check "the same once more, $mode" itself cuda nll.again "$mode"
        check "both scores, $mode" agree "$tmp/cpu.txt" "$tmp/card.txt"
        check "the card's bits, twice" cmp "$tmp/nll.card" "$tmp/nll.again"
    done
}

# ---- several cards ----
train_many() { # name, ranks: a card each
    many=$1 ranks=$2 bad=0 pids=
    shift 2
    for r in $(seq 0 $((ranks - 1))); do
        RANK=$r WORLD_SIZE=$ranks LOCAL_RANK=$r MASTER_ADDR=127.0.0.1 MASTER_PORT=$((20000 + $$ % 10000)) \
            train_on "$many" cuda "$@" &
        pids="$pids $!"
    done
    for p in $pids; do wait "$p" || bad=1; done
    return $bad
}
cards() {
    if [ ! -x "$T/comm_test" ]; then
        not_run "exchanges over NCCL, whose nccl.h was not there (libnccl-dev)"
    elif "$T/comm_test" "$cards" 2>&1 | grep -o 'cannot open libnccl.*'; then
        not_run "exchanges over NCCL, whose library is not where the loader looks (LD_LIBRARY_PATH)"
    else
        check "exchanges over NCCL, $cards cards" "$T/comm_test" "$cards"
    fi
    if [ "$cards" -gt 1 ]; then
        on_cpu
        check "training on 2 cards" train_many both 2 MICRO_BATCH_TOKENS=1024
        check "losses of CPU and 2 cards" near both
    else
        not_run "training on 2 cards: there is one"
    fi
}

for part in $PARTS; do
    case $part in
    ops | sanitizer | parity | train | score | submission | cards) ;;
    *)
        echo "run.sh: PARTS: there is no $part" >&2
        exit 2
        ;;
    esac
done
nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader || {
    echo "no graphics card here"
    exit 4
}
cards=$(nvidia-smi -L | wc -l)
for part in $PARTS; do
    start=$SECONDS
    echo "== $part"
    $part
    echo "   $part: $((SECONDS - start)) s"
done
[ $failed = 0 ] && echo "all passed" || echo "something FAILED"
exit $failed
