#!/bin/bash
# modes_test.sh - every evaluation method from inside a submission: it scores itself by its recipe's own method,
# prints the value of record first, and verify confirms all of it bit for bit.
#
# Guards against: a method that the packed runner computes in another way than verify does, a value without its
# kind and conditions beside it, a runner that cannot do what its recipe asks for.
set -u
name=modes
. "$(dirname "$0")/lib.sh"

make_data "$dir/data" || fail "shards"
make_recipe "$dir/recipe.conf"
"$BIN/trainer" "$dir/recipe.conf" DATA_PATH="$dir/data" --out "$dir" --quiet || fail "trainer"

# submission NAME SETTING...: the same weights with another recipe, packed.
submission() {
    out=$1
    shift
    "$BIN/trainer" "$dir/recipe.conf" DATA_PATH="$dir/data" --out "$dir/$out" --quiet "$@" &&
        "$BIN/packer" pack "$dir/$out/model.quant.safetensors" -o "$dir/$out/submission" >/dev/null ||
        fail "$out: made"
}

own_method() { # own_method NAME MODE: runs, values in order, conditions, verified
    file=$dir/$1/submission
    check "$1: runs" sh -c '"$0" --data "$1" >"$2"' "$file" "$dir/data" "$dir/$1/out"
    check "$1: value of record first" \
        [ "$(sed -n '1s/ .*//p' "$dir/$1/out")" = final_sliding ]
    check "$1: its own value second" [ "$(sed -n '2s/ .*//p' "$dir/$1/out")" = "final_$2" ]
    check "$1: conditions third" [ "$(sed -n '3s/:.*//p' "$dir/$1/out")" = "conditions $2" ]
    "$BIN/verify" blob "$file" --data "$dir/data" --execute >"$dir/$1/verify" 2>&1
    check "$1: verified" [ "$(tail -n 1 "$dir/$1/verify")" = verified ]
    check "$1: the same lines" sh -c \
        'sed "s/time_ms.*//" "$0" | head -n 3 | while read -r l; do grep -qF "$l" "$1" || exit 1; done' \
        "$dir/$1/out" "$dir/$1/verify"
}

submission slot EVAL_MODE=slot SLOT_STEPS=3 SLOT_LR_MIN=0.0008
submission window EVAL_MODE=slot-context SLOT_STEPS=3
submission shared EVAL_MODE=slot-context SLOT_STEPS=3 SLOT_SHARED=1 SLOT_AFTER_TTT=1 TTT_CHUNK_TOKENS=256
submission ttt EVAL_MODE=ttt TTT_CHUNK_TOKENS=256
own_method slot slot
own_method window slot-context
own_method shared slot-context
own_method ttt ttt

# The bits of every method on every instruction set.
for isa in portable avx2 avx512; do
    for s in slot ttt; do
        KERN_ISA=$isa "$dir/$s/submission" --data "$dir/data" --max-tokens 512 --nll "$dir/$s.$isa.npy" \
            >/dev/null 2>"$dir/err" || { grep -q "this machine has" "$dir/err" && continue; fail "$s on $isa"; }
        check "$s: $isa as portable" cmp -s "$dir/$s.portable.npy" "$dir/$s.$isa.npy"
    done
done
exit $failed
