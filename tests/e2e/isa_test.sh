#!/bin/bash
# isa_test.sh - one hash of all scores, for every instruction set of this machine and several numbers of
# threads, from the submission itself and from verify.
#
# Guards against a score that depends on the machine. What each operation promises is tested in
# tests/unit; this is the whole program as it ships.
set -u
name=isa
. "$(dirname "$0")/lib.sh"
cd "$dir" || exit 1
make_data data
make_recipe tiny.conf
# Widths that no vector divides, heads of 6, windows that are no multiple of a block of keys.
"$BIN/trainer" tiny.conf DATA_PATH=data MODEL_DIM=42 NUM_HEADS=7 NUM_KV_HEADS=1 MLP_MULT=1.5 \
    MLP_SLOPE=0.5 ROPE_DIMS=4 LN_SCALE=1 NUM_LAYERS=3 TRAIN_SEQ_LEN=75 TRAIN_BATCH_TOKENS=600 \
    EVAL_STRIDE=13 --out m --quiet || fail "trainer"
"$BIN/packer" pack m/model.quant.safetensors -o s >/dev/null || fail "packer"

one=
compare() { # compare CASE FILE
    hash=$(sha256sum <"$2")
    if [ -z "$one" ]; then one=$hash; fi
    if [ ! -s "$2" ]; then
        fail "$1: nothing was written"
    elif [ "$hash" = "$one" ]; then
        ok "$1"
    else
        fail "$1: other bits"
    fi
}

sets=
for isa in portable avx2 avx512; do
    if KERN_ISA=$isa ./s --data data --max-tokens 75 >/dev/null 2>err.txt; then
        sets="$sets $isa"
    elif [ $? -eq 2 ] && grep -q "this machine has" err.txt; then
        echo "skip $name: $isa: $(cat err.txt)"
    else
        fail "$isa: $(cat err.txt)"
    fi
done
for isa in $sets; do
    for threads in 1 2 3 7; do
        KERN_ISA=$isa ./s --data data --max-tokens 450 --threads $threads --nll n.npy >/dev/null
        compare "submission, $isa, $threads threads" n.npy
        rm -f n.npy
    done
    KERN_ISA=$isa "$BIN/verify" score m/model.quant.safetensors --data data --max-tokens 450 --threads 2 \
        --nll n.npy >/dev/null
    compare "verify score, $isa" n.npy
    rm -f n.npy
    KERN_ISA=$isa "$BIN/verify" blob s --data data --max-tokens 450 --nll n.npy >/dev/null
    compare "verify blob, $isa" n.npy
    rm -f n.npy
done
./s --data data --max-tokens 450 --nll n.npy >/dev/null
compare "submission, as it comes" n.npy
refused "an instruction set that does not exist" 2 "KERN_ISA=mmx" env KERN_ISA=mmx ./s --data data

# Training has one result as well.
one=
for isa in $sets; do
    KERN_ISA=$isa "$BIN/trainer" tiny.conf DATA_PATH=data ITERATIONS=5 --out t --quiet || fail "trainer"
    tail -c +$((9 + $(st_header t/model.safetensors))) t/model.safetensors >w
    compare "training, $isa" w
done

exit $failed
