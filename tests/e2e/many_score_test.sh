#!/bin/bash
# many_score_test.sh - `verify score` and `verify blob` as jobs of several processes.
#
# Guards against: a score that depends on how many processes computed it, ranks that talk at the same time or
# overwrite one another's files, ranks that score different things together, a job that hangs when one of its
# ranks fails, dies or stops, and commands that are not shared out but done once by each rank.
set -u
name=many_score
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/many.sh"

make_data "$dir/data" || fail "shards"
make_recipe "$dir/recipe.conf"
"$BIN/trainer" "$dir/recipe.conf" DATA_PATH="$dir/data" --out "$dir/m" --quiet || fail "trainer"
w=$dir/m/model.quant.safetensors
"$BIN/packer" pack "$w" -o "$dir/submission" >/dev/null || fail "packer"
fits="TTT_CHUNK_TOKENS=256 SLOT_STEPS=3 SLOT_BATCH_SEQS=8"

# ---- the same bits and lines ----

for mode in plain sliding slot slot-context ttt shared; do
    more=
    [ $mode = shared ] && more="SLOT_SHARED=1 SLOT_AFTER_TTT=1"
    # shellcheck disable=SC2086
    "$BIN/verify" score "$w" --data "$dir/data" --eval ${mode/shared/slot-context} --nll "$dir/one.npy" \
        $fits $more >"$dir/one" 2>&1 || fail "$mode: $(cat "$dir/one")"
    for how in $launchers; do
        # What is exchanged does not depend on who carries it: two modes are enough for mpi.
        [ $how = mpi ] && [[ " sliding shared " != *" $mode "* ]] && continue
        for n in 3 $([ $mode = sliding ] && echo 2 5); do
            rm -f "$dir/many.npy"
            # shellcheck disable=SC2086
            launch $how $n "$BIN/verify" score "$w" --data "$dir/data" --eval ${mode/shared/slot-context} \
                --nll "$dir/many.npy" --threads 1 $fits $more
            check "$mode, $how, $n ranks: succeeds" [ $status = 0 ]
            same "$mode, $how, $n ranks: every score" "$dir/one.npy" "$dir/many.npy"
            [ "$(result "$dir/all.out")" = "$(result "$dir/one")" ] || fail "$mode, $how, $n ranks: other lines"
            [ "$(wc -l <"$dir/all.out")" = "$(wc -l <"$dir/one")" ] || fail "$mode, $how, $n ranks: not one report"
        done
    done
done

"$BIN/verify" blob "$dir/submission" --data "$dir/data" >"$dir/one" 2>&1 || fail "blob: $(cat "$dir/one")"
hash=$(sed -n 's/.*nll_xxh64://p' "$dir/one")
echo "{\"nll_xxh64\": \"$hash\"}" >"$dir/right.json"
echo '{"nll_xxh64": "0123456789abcdef"}' >"$dir/wrong.json"
for how in $launchers; do
    launch $how 3 "$BIN/verify" blob "$dir/submission" --data "$dir/data" --execute --claim "$dir/right.json" \
        --report "$dir/$how.html"
    check "blob, $how: verified" [ "$status$(tail -n 1 "$dir/all.out")" = 0verified ]
    check "blob, $how: one result" [ "$(grep -c '^final_' "$dir/all.out")" = 1 ]
    check "blob, $how: a page" grep -q '</html>' "$dir/$how.html"
    launch $how 2 "$BIN/verify" blob "$dir/submission" --data "$dir/data" --claim "$dir/wrong.json" --json
    check "blob, $how: a wrong claim" [ "$status$(grep -c '"verdict":.*"not verified"' "$dir/all.out")" = 11 ]
done

# ---- ranks that do not fit together ----

# says HOW STATUS TEXT: the job ended so, and one line, of one rank, says why.
says() {
    local said
    said=$(grep -c '^verify: ' "$dir/all.err")
    if [ $late = 1 ]; then
        fail "$1: did not end"
    elif [ "$status" != "$2" ]; then
        fail "$1: exit status $status, expected $2: $(head -c 400 "$dir/all.err")"
    elif [ "$said" != 1 ] || ! grep -q "^verify: .*$3" "$dir/all.err"; then
        fail "$1: nothing says \"$3\" once: $(head -c 400 "$dir/all.err")"
    else
        ok "$1"
    fi
}

make_recipe "$dir/other.conf"
"$BIN/trainer" "$dir/other.conf" DATA_PATH="$dir/data" SEED=2 --out "$dir/other" --quiet || fail "other weights"
cp -r "$dir/data" "$dir/data2"
flip "$dir/data2/fineweb_val_000000.bin" 2000
mkdir "$dir/data3"
cd "$dir" || exit 1
for how in $launchers; do
    launch $how 3 ./as_rank 2 data data2 "$BIN/verify" score "$w" --data data
    says "other tokens, $how" 3 "rank 2 has not the same tokens as rank 0"
    launch $how 3 ./as_rank 1 data data3 "$BIN/verify" score "$w" --data data
    says "no tokens, $how" 3 "rank 1: data3.* no"
    launch $how 2 ./as_rank 1 "$w" other/model.quant.safetensors "$BIN/verify" score "$w" --data data
    says "other weights, $how" 3 "rank 1 has not the same weights as rank 0"
    launch $how 2 ./as_rank 1 EVAL_STRIDE=8 EVAL_STRIDE=4 "$BIN/verify" score "$w" --data data EVAL_STRIDE=8
    says "other settings, $how" 3 "rank 1 has not the same settings as rank 0"
    launch $how 2 "$BIN/verify" score nowhere --data data
    says "no weights on any rank, $how" 3 "nowhere"
    launch $how 3 ./as_rank 1 "$w" nowhere "$BIN/verify" score "$w" --data data
    says "no weights on one rank, $how" 3 "rank 1: nowhere"
    launch $how 2 "$BIN/verify" score "$w" --data data --nll nowhere/x.npy
    says "no place for the scores, $how" 4 "rank 0: nowhere/x.npy"
done

# ---- what is not shared out: rank 0 does it, once ----

echo 'import lzma as L,base64 as B' >script.py
echo 'print(1)' | xz --format=raw --lzma2=dict=1MiB | base64 -w 0 | sed "s/^/exec(L.decompress(B.b85decode('/; s/$/')))/" \
    >>script.py
mkdir record
echo '{"val_bpb": 1.5}' >record/submission.json
for how in $launchers; do
    while read -r command words; do
        rm -f source.py
        # shellcheck disable=SC2086
        "$BIN/verify" $command $words >one.txt 2>one.err
        alone=$?
        rm -f source.py
        # shellcheck disable=SC2086
        launch $how 3 "$BIN/verify" $command $words
        grep -v ' s$' one.txt >x # what takes time says how much
        grep -v ' s$' all.out >y
        if [ $late = 1 ] || [ $status != $alone ] || ! cmp -s x y; then
            fail "$command $words, $how: status $status, expected $alone: $(head -c 600 all.out all.err)"
        elif [ "$(grep -c "^verify: $command is one process's work: rank 0 does it, the other 2 leave" all.err)" != 1 ]; then
            fail "$command $words, $how: not said once who does it: $(head -c 600 all.err)"
        elif [ "$(grep -c '^verify: ' all.err)" != $((1 + $(grep -c '^verify: ' one.err))) ]; then
            fail "$command $words, $how: other errors than alone: $(head -c 600 all.err)"
        else
            ok "$command $words, $how: once, status $status"
        fi
    done <<'EOW'
unwrap script.py
unwrap script.py -o source.py --json
unwrap nowhere.py
unwrap
record record
record record --json
record nowhere
probe submission --data data --eval plain --quiet --positions 0 --flips 1
probe submission
probe --help
EOW
done

# ---- ranks that die or stop ----

long="--eval ttt TTT_CHUNK_TOKENS=256 TTT_EPOCHS=1000"
for how in $launchers; do
    for who in 0 2; do
        # shellcheck disable=SC2086
        start $how 3 "$BIN/verify" score "$w" --data data --threads 1 $long
        sleep 1
        signal $who KILL
        named "rank $who killed, $how" "rank $who"
    done
    # shellcheck disable=SC2086
    COMM_TIMEOUT=2 start $how 3 "$BIN/verify" score "$w" --data data --threads 1 $long
    sleep 1
    signal 1 STOP
    named "rank 1 stopped, $how" "^verify: rank [02]: .*rank 1"
done
exit $failed
