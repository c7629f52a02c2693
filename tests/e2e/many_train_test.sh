#!/bin/bash
# many_train_test.sh - training by several processes is training by one: the same losses, the same bytes; and a
# checkpoint does not know how many wrote it.
#
# Guards against a sum whose order depends on the processes, data that are read twice or not at all, weights that
# drift apart, and a run that hangs or repeats itself once per process.
set -u
name=many_train
. "$(dirname "$0")/lib.sh"
cd "$dir" || exit 1
. "$OLDPWD/$(dirname "$0")/many.sh"
make_data data
make_recipe tiny.conf

# 16 micro-batches in 8 gradients; everything that has state is on.
set -- tiny.conf DATA_PATH=data MICRO_BATCH_TOKENS=32 TRAIN_LOG_EVERY=1 VAL_LOSS_EVERY=10 GRAD_CLIP_NORM=0.5 \
    EMA_DECAY=0.9 WARMDOWN_ITERS=0 --threads 1
tensors() { tail -c +$((9 + $(st_header "$1"))) "$1"; } # the header holds the time
losses() { grep -o '^step:[0-9/]* [a-z]*_loss:[0-9.]*\|^final_.*_exact .*' "$1/train.log"; }
alike() { # CASE DIR: as the run of one process
    for f in model model.quant; do
        tensors one/$f.safetensors >x
        tensors "$2/$f.safetensors" >y
        same "$1: $f" x y
    done
    losses one >x
    losses "$2" >y
    same "$1: losses" x y
}
done_well() { # CASE: what launch has just run
    if [ "$status$late" = 00 ]; then ok "$1"; else fail "$1: status $status: $(head -c 400 all.err)"; fi
}

check "one process" "$BIN/trainer" "$@" --out one
check "one process, one gradient" "$BIN/trainer" "$@" GRAD_RANKS=1 --out plain --quiet
if cmp -s one/model.safetensors plain/model.safetensors; then fail "GRAD_RANKS does nothing"; fi
for how in $launchers; do
    for n in 2 3; do
        launch "$how" $n "$BIN/trainer" "$@" --out "$how$n"
        done_well "$n processes ($how)"
        alike "$n processes ($how)" "$how$n"
        grep -q "^world_size:$n " "$how$n/train.log" || fail "no world_size:$n"
        grep -q '^comm: per step and rank sent:[1-9]' "$how$n/train.log" || fail "no line about communication"
        [ "$(grep -c '^step:30/30 train_loss' all.out)" = 1 ] || fail "$how: the console shows it more than once"
    done
    # One step after the other on another number of processes.
    launch "$how" 2 "$BIN/trainer" "$@" CHECKPOINT_EVERY=50 ITERATIONS=7 --out "again$how" --quiet
    launch "$how" 3 "$BIN/trainer" "$@" CHECKPOINT_EVERY=50 ITERATIONS=19 --resume --out "again$how" --quiet
    check "resumed on 3, then on 1 ($how)" "$BIN/trainer" "$@" --resume --out "again$how" --quiet
    tensors one/model.safetensors >x
    tensors "again$how/model.safetensors" >y
    same "from 2 to 3 to 1 processes ($how)" x y
    check "one begins" "$BIN/trainer" "$@" CHECKPOINT_EVERY=50 ITERATIONS=11 --out "more$how" --quiet
    launch "$how" 2 "$BIN/trainer" "$@" --resume --out "more$how" --quiet
    tensors "more$how/model.safetensors" >y
    same "from 1 to 2 processes ($how)" x y
done

# More processes than gradients: all are told, none waits.
launch tcp 3 "$BIN/trainer" "$@" GRAD_RANKS=2 --out many
if [ "$status" = 2 ] && [ "$(cat all.err | wc -l)" = 1 ] && grep -q '3 ranks for 2 gradients: GRAD_RANKS=2' all.err; then
    ok "too many processes"
else
    fail "too many processes: status $status: $(head -c 400 all.err)"
fi
[ -e many/model.safetensors ] && fail "too many processes: a model"

# Started by something that this MPI does not understand: each would be a job of its own.
if [[ $launchers = *mpi* ]]; then
    refused "MPI that finds itself alone" 2 "one of 2 processes.*COMM=tcp" \
        env COMM=mpi RANK=0 WORLD_SIZE=2 "$BIN/trainer" "$@" --out nothing
fi

# SIGTERM to one of them: all stop after the same step.
start tcp 2 "$BIN/trainer" "$@" ITERATIONS=100000 --out stopped --quiet
for _ in $(seq 400); do
    grep -q '^step:5/' stopped/train.log 2>/dev/null && break
    sleep 0.02
done
signal 1 TERM
finish
if [ "$status$late" = 40 ] && grep -q 'stopped at step .*, resume with --resume' all.err &&
    [ "$(cat all.err | wc -l)" = 1 ]; then
    ok "a signal to one process"
else
    fail "a signal to one process: status $status: $(head -c 400 all.err)"
fi
check "which can be resumed" "$BIN/trainer" "$@" ITERATIONS=1 --resume --out stopped --quiet

# Slurm at a time limit: twice to each of them, in the middle of a step that takes some time.
start tcp 2 "$BIN/trainer" "$@" TRAIN_BATCH_TOKENS=131072 ITERATIONS=100000 --out twice --quiet
for _ in $(seq 400); do
    grep -q '^step:1/' twice/train.log 2>/dev/null && break
    sleep 0.02
done
for _ in 1 2; do
    sleep 0.1
    signal 0 TERM
    signal 1 TERM
done
finish
if [ "$status$late" = 40 ] && grep -q 'stopped at step .*, resume with --resume' all.err; then
    ok "a signal twice"
else
    fail "a signal twice: status $status: $(head -c 400 all.err)"
fi

check "dry run" "$BIN/trainer" "$@" --dry-run
cp out.txt dry.txt
check "dry run tells the memory of a rank" grep -q '^each of 8 ranks: .* in all [0-9.]* MiB$' dry.txt
exit $failed
