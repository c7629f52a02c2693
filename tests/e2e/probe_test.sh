#!/bin/bash
# probe_test.sh - verify probe as a program: a real submission in all its modes, programs in no format of ours,
# honest and not, wrong use, and an interruption.
#
# Guards against: a mode that is called causal and is not, or the other way round; a probe that depends on
# chance; exit statuses that a script cannot rely on; shards left behind in /tmp.
set -u
name=probe
. "$(dirname "$0")/lib.sh"
verify=$BIN/verify

make_data "$dir/data" || fail "shards"
make_recipe "$dir/recipe.conf"
"$BIN/trainer" "$dir/recipe.conf" DATA_PATH="$dir/data" EVAL_MODE=slot SLOT_BATCH_SEQS=4 SLOT_SHARED=1 \
    TTT_CHUNK_TOKENS=256 --out "$dir" --quiet || fail "trainer"
"$BIN/packer" pack "$dir/model.quant.safetensors" -o "$dir/submission" >/dev/null || fail "packer"
"$BIN/trainer" "$dir/recipe.conf" DATA_PATH="$dir/data" EVAL_MODE=slot-context --out "$dir/b" --quiet || fail "trainer"
"$BIN/packer" pack "$dir/b/model.quant.safetensors" -o "$dir/strict" >/dev/null || fail "packer"
# The runner with gradients is packed for a recipe whose own method trains.
"$BIN/trainer" "$dir/recipe.conf" DATA_PATH="$dir/data" EVAL_MODE=ttt TTT_CHUNK_TOKENS=256 --out "$dir/c" --quiet ||
    fail "trainer"
"$BIN/packer" pack "$dir/c/model.quant.safetensors" -o "$dir/adapts" >/dev/null || fail "packer"

# verdict CASE STATUS TEXT COMMAND...: exit status, and a line of the output that begins with TEXT.
verdict() {
    what=$1 status=$2 text=$3
    shift 3
    got=0
    "$@" >"$dir/out.txt" 2>"$dir/err.txt" </dev/null || got=$?
    cp "$dir/out.txt" "$dir/verdicts.txt"
    if [ "$got" -ne "$status" ]; then
        fail "$what: exit status $got, expected $status: $(tail -n 3 "$dir/out.txt" "$dir/err.txt")"
    elif ! grep -q -- "^$text" "$dir/out.txt"; then
        fail "$what: no line \"$text\": $(tail -n 3 "$dir/out.txt")"
    else
        ok "$what"
    fi
}

probe() { # probe FILE MODES [OPTION]...: the verdicts only
    file=$1 eval=$2
    shift 2
    "$verify" probe "$file" --data "$dir/data" --eval "$eval" --quiet --positions 2 "$@"
}

# ---- a real submission ----

verdict "plain and sliding" 0 "sliding: causal; conditions 1 yes, 2 yes, 3 yes, 4 yes" \
    probe "$dir/submission" plain,sliding
check "the same, plain" grep -q "^plain: causal; conditions 1 yes, 2 yes, 3 yes, 4 yes" "$dir/verdicts.txt"
verdict "a small budget: samples" 0 "sliding: causal" probe "$dir/submission" sliding --budget 1
verdict "SLOT knows what it scores" 1 "slot: not causal" probe "$dir/submission" slot
check "SLOT, conditions" \
    grep -q "^slot: .*; conditions 1 no, 2 not checked, 3 no, 4 not checked" "$dir/verdicts.txt"
verdict "one delta for a batch of windows" 1 "slot-context: not causal" \
    probe "$dir/submission" slot-context
verdict "one delta for each window" 0 "slot-context: causal; conditions 1 yes, 2 yes, 3 yes, 4 yes" \
    probe "$dir/strict" slot-context
verdict "score first, then train" 0 "ttt: causal; conditions 1 yes, 2 yes, 3 yes, 4 yes" \
    probe "$dir/adapts" ttt
for i in 1 2; do
    "$verify" probe "$dir/submission" --data "$dir/data" --eval sliding --seed 7 --json \
        --positions 1 >"$dir/$i.json" 2>/dev/null
done
same "one seed, one report" "$dir/1.json" "$dir/2.json"
check "it is confirmed in JSON too" grep -q '"confirmed":	true' "$dir/1.json"

# ---- other programs ----

src=$(dirname "$0")/../unit/probe_test.c
${CC:-cc} -O1 -static -D_GNU_SOURCE -DPROBE_GUEST -o "$dir/honest" "$src" -lm || fail "guest"
for g in own ahead skip random; do cp "$dir/honest" "$dir/$g"; done
settings="VOCAB_SIZE=32 TRAIN_SEQ_LEN=64 EVAL_STRIDE=16"
# shellcheck disable=SC2086  # settings are words
guest() { probe "$dir/$1" sliding $settings; }
verdict "honest" 0 "sliding: causal" guest honest
verdict "its own token" 1 "sliding: not normalised: the probabilities of all tokens" guest own
verdict "a later token" 1 "sliding: not causal" guest ahead
verdict "tokens left out" 1 "sliding: incomplete" guest skip
verdict "chance" 1 "sliding: not repeatable" guest random

# ---- wrong use, bad input ----

refused "no file" 2 "say which file" "$verify" probe --data "$dir/data"
refused "no data" 2 "say --data" "$verify" probe "$dir/submission"
on="--data $dir/data"
# shellcheck disable=SC2086  # $on and $settings are words
{
    refused "unknown mode" 2 "no such mode" "$verify" probe "$dir/submission" $on --eval plain,sideways
    refused "settings of a submission" 2 "brings its own" \
        "$verify" probe "$dir/submission" $on TRAIN_SEQ_LEN=8
    refused "no such file" 3 "nowhere" "$verify" probe "$dir/nowhere" $on
    refused "no program" 3 "cannot be executed" \
        "$verify" probe "$dir/model.quant.safetensors" $on $settings
    refused "another vocabulary" 3 "vocabulary" "$verify" probe "$dir/honest" $on VOCAB_SIZE=8
    cp "$dir/submission" "$dir/damaged"
    flip "$dir/damaged" $(($(size "$dir/damaged") - 5))
    refused "damaged" 3 "recipe" "$verify" probe "$dir/damaged" $on
}

# ---- nothing is left ----

mkdir "$dir/tmp"
TMPDIR=$dir/tmp "$verify" probe "$dir/submission" --data "$dir/data" --quiet --positions 1000 --flips 1000 \
    >/dev/null 2>&1 &
pid=$!
for _ in 1 2 3 4 5 6 7 8 9 10; do
    [ -n "$(ls -A "$dir/tmp")" ] && break
    sleep 0.2
done
[ -n "$(ls -A "$dir/tmp")" ] || fail "no shard was written where TMPDIR says"
kill -TERM $pid
got=0
wait $pid || got=$?
if [ $got -eq 143 ] && [ -z "$(ls -A "$dir/tmp")" ]; then
    ok "interrupted, nothing left behind"
else
    fail "interrupted: exit status $got, left $(ls -A "$dir/tmp")"
fi

exit $failed
