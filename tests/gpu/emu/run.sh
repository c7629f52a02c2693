#!/bin/bash
# run.sh - `make emu`: the CUDA backend on an emulated card (README.md), with every check on. What runs twice,
# in both orders of blocks and threads and with streams as late and as early as they may be, must give the same
# bits.
set -u
B=${B:-build} FIXTURES=${FIXTURES:-../shared/fixtures/parity}
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
cores=$(nproc)
run() { # name, log, command...: in the background, as many at a time as there are cores
    name=$1 log=$2
    shift 2
    while [ "$(jobs -rp | wc -l)" -ge "$cores" ]; do wait -n; done
    {
        if "$@" > "$tmp/$log" 2>&1; then
            echo "ok      emulated card, $name: $(tail -n 1 "$tmp/$log")"
        else
            echo "FAILED  emulated card, $name"
            grep -vE '^ok ' "$tmp/$log" | tail -n 30
            touch "$tmp/failed"
        fi
    } &
}

# The long ones first.
run "launches and memory at full size" full "$B/emu/full_test"
run "training and scoring" train "$B/emu/train_test"
run "faults are found" faults "$B/emu/faults_test"
run "operations beside the CPU" up env KERN_MLP=wgmma "$B/emu/ops_test" --small --seed 4
run "the same backwards, streams at once" down \
    env KERN_MLP=wgmma EMU_ORDER=down EMU_STREAM=eager "$B/emu/ops_test" --small --seed 4
run "operations on sm_80, without cuBLASLt" none \
    env EMU_CARD=80 EMU_LT=none "$B/emu/ops_test" --small --seed 5
run "steps as one tape" whole "$B/emu/whole_test"
run "the same, streams at once" whole2 env EMU_STREAM=eager "$B/emu/whole_test"
if [ -d "$FIXTURES" ]; then
    # Without whole evaluations, which take a minute and a half here; train_test scores in every mode.
    mkdir "$tmp/fixtures"
    ln -s "$(realpath "$FIXTURES")"/[!e]*.safetensors "$tmp/fixtures"
    run "models and steps of the reference" parity "$B/emu/parity" --device cuda "$tmp/fixtures"
else
    echo "not run: models and steps of the reference, which need $FIXTURES"
fi
run "exchanges between cards" comm "$B/emu/comm_test"
run "the same, streams at once" comm2 env EMU_STREAM=eager "$B/emu/comm_test"
wait
run "the same bits" same diff "$tmp/up" "$tmp/down"
run "attention and MLP for sm_90a are used" used grep "attention by wgmma, MLP by wgmma" "$tmp/up"
wait
[ ! -e "$tmp/failed" ]
