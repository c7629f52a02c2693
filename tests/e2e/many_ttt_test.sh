#!/bin/bash
# many_ttt_test.sh - test-time training by several processes: the rows of its steps are shared out.
#
# Guards against: scores that depend on how many processes trained, or on who started them, a submission whose own
# training comes to other bits than theirs, and a job that hangs, or names nobody, when a rank dies or stops in the
# middle of a step.
set -u
name=many_ttt
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/many.sh"
cd "$dir" || exit 1

make_data data || fail "shards"
make_recipe recipe.conf
"$BIN/trainer" recipe.conf DATA_PATH=data EVAL_MODE=ttt TTT_CHUNK_TOKENS=416 --out m --quiet || fail "trainer"
w=m/model.quant.safetensors
"$BIN/packer" pack $w -o submission >/dev/null || fail "packer"

# ---- the same bits ----

# A chunk of 416 positions is 13 rows of 32.
for set in "TTT_BATCH_SEQS=32" "TTT_BATCH_SEQS=8" "TTT_BATCH_SEQS=2 EMBED_BF16=1 TTT_FREEZE_BLOCKS=1"; do
    # shellcheck disable=SC2086
    "$BIN/verify" score $w --data data --nll one.npy $set >one 2>&1 || fail "$set: $(cat one)"
    for how in $launchers; do
        for n in 2 3 $([ "$how" = tcp ] && echo 5); do
            rm -f many.npy
            # shellcheck disable=SC2086
            launch $how "$n" "$BIN/verify" score $w --data data --nll many.npy --threads 1 $set
            [ $status = 0 ] || fail "$set, $how, $n ranks: $(head -c 400 all.err)"
            same "$set, $how, $n ranks: every score" one.npy many.npy
        done
    done
done

# The submission trains as well, alone: verify asks for the same bits.
for how in $launchers; do
    launch $how 2 "$BIN/verify" blob submission --data data --execute
    check "blob, $how: verified" [ "$status$(tail -n 1 all.out)" = 0verified ]
done

# ---- faults in the middle of training ----

# Nearly all of the time is training: 13,000 rows per chunk beside a few hundred short windows.
long="TTT_EPOCHS=1000"
for how in $launchers; do
    for who in 0 1 2; do
        start $how 3 "$BIN/verify" score $w --data data --threads 1 $long
        sleep 0.$((3 + RANDOM % 7))
        signal $who KILL
        named "rank $who killed, $how" "rank $who"
    done
    COMM_TIMEOUT=2 start $how 3 "$BIN/verify" score $w --data data --threads 1 $long
    sleep 0.7
    signal 1 STOP
    named "rank 1 stopped, $how" "^verify: .*rank 1"
done
exit $failed
