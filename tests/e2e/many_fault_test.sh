#!/bin/bash
# many_fault_test.sh - training in several processes, and what can happen to one of them: it is killed, it stops, its
# disk is full, it has other data, its network is slow or breaks. FAULTS=N (2) kills per launcher; SEED=N (1) of the
# moments.
#
# Guards against: a job that hangs, one that ends and does not say whose fault it was, and above all a checkpoint
# that is damaged or goes on to other weights than a run that nobody disturbed.
set -u
name=many_fault
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/many.sh"
RANDOM=${SEED:-1}
cd "$dir" || exit 1
net=pgolf$$
cleanup() {
    umount "$dir/small"
    ip netns del $net-0
    ip netns del $net-1
    rm -rf "$dir"
} 2>/dev/null
trap cleanup EXIT

make_data data || fail "shards"
make_recipe recipe.conf
# Eight micro-batches per step, so that up to eight ranks may share it; a checkpoint about every tenth of a second.
cat >>recipe.conf <<'EOF'
MICRO_BATCH_TOKENS=64
TRAIN_BATCH_TOKENS=512
ITERATIONS=400
WARMDOWN_ITERS=100
CHECKPOINT_EVERY=25
EMA_DECAY=0.9
GRAD_CLIP_NORM=1
EOF
train=("$BIN/trainer" recipe.conf DATA_PATH=data --threads 1 --quiet --out)

# weights FILE: without the header, which tells the time that training took.
weights() { tail -c +$((9 + $(st_header "$1"))) "$1" | md5sum; }

# pause MS
pause() { sleep "$(printf '%d.%03d' $(($1 / 1000)) $(($1 % 1000)))"; }

# ended CASE STATUS TEXT: in time, with that status, and somebody says TEXT.
ended() {
    if [ $late = 1 ]; then
        fail "$1: still running after $seconds s: $(head -c 600 all.err)"
    elif [[ "|$2|" != *"|$status|"* ]]; then
        fail "$1: exit status $status, expected $2: $(head -c 600 all.err)"
    elif ! grep -q -- "$3" all.err; then
        fail "$1: nobody says \"$3\": $(head -c 600 all.err)"
    else
        ok "$1: ended after $seconds s"
    fi
}

# resumed CASE DIR RANKS: what is left in DIR, a checkpoint or nothing yet, goes on to the reference's weights.
resumed() {
    local again=(--resume)
    [ -e "$2/checkpoint" ] || again=()
    launch "$how" "$3" "${train[@]}" "$2" "${again[@]}"
    if [ $status != 0 ]; then
        fail "$1: does not go on: $(head -c 600 all.err)"
    elif [ "$(weights "$2/model.safetensors")" != "$want" ]; then
        fail "$1: goes on to other weights"
    else
        ok "$1: goes on to the same weights with $3 ranks, ${again[0]:-from the start}"
    fi
}

"${train[@]}" one || fail "one process"
want=$(weights one/model.safetensors)
cp -r data data2
flip data2/fineweb_val_000000.bin 2000

for how in $launchers; do
    launch $how 3 "${train[@]}" all-$how
    [ $status = 0 ] || fail "$how, 3 ranks: $(head -c 600 all.err)"
    [ "$(weights all-$how/model.safetensors)" = "$want" ] || fail "$how, 3 ranks: other weights than one process"
    whole=$((($(now) - began) / 1000000)) # ms

    for ((i = 0; i < ${FAULTS:-2}; i++)); do
        run=killed-$how-$i who=$((RANDOM % 3)) after=$((whole / 10 + RANDOM % (whole * 8 / 10)))
        case="$how, rank $who killed after $after of $whole ms"
        start $how 3 "${train[@]}" $run
        pause $after
        signal $who KILL
        patience=20 finish
        if [ $status = 0 ]; then
            ok "$case: it was over by then"
        else
            ended "$case" "1|4|137" "rank $who"
        fi
        resumed "$case" $run $((1 + (who + i) % 3))
    done

    COMM_TIMEOUT=2 start $how 3 "${train[@]}" stopped-$how ITERATIONS=100000
    sleep 1
    signal 1 STOP
    patience=20 finish
    ended "$how, rank 1 stopped" "1|4|137" "trainer: .*rank 1"

    # A signal to one rank stops them all at the same step, with a checkpoint.
    start $how 3 "${train[@]}" asked-$how
    pause $((whole / 2))
    signal 2 TERM
    patience=20 finish
    if [ $status = 0 ]; then
        ok "$how, rank 2 asked to stop: it was over by then"
    else
        ended "$how, rank 2 asked to stop" 4 "stopped at step [0-9]*, resume"
    fi
    resumed "$how, rank 2 asked to stop" asked-$how 2

    # ---- ranks that do not fit together ----

    launch $how 3 ./as_rank 2 DATA_PATH=data DATA_PATH=data2 "${train[@]}" other-$how
    ended "$how, other data on rank 2" 3 "^trainer: .*rank 2"
    launch $how 2 ./as_rank 1 SEED=1 SEED=2 "${train[@]}" other-$how SEED=1
    ended "$how, another recipe on rank 1" 3 "^trainer: .*rank 1"
    launch $how 3 ./as_rank 1 DATA_PATH=data DATA_PATH=nowhere "${train[@]}" other-$how
    ended "$how, no data on rank 1" 3 "^trainer: .*rank 1.*nowhere"
    [ -e other-$how/model.safetensors ] && fail "$how: weights of ranks that did not fit together"
    launch $how 9 "${train[@]}" many-$how
    ended "$how, more ranks than gradients" 2 "^trainer: .*GRAD_RANKS"
done

# ---- a disk that fills up: only rank 0 writes, so only rank 0 can see it ----

if mkdir small && mount -t tmpfs -o size=3m none small 2>/dev/null; then
    for how in $launchers; do
        start $how 3 "${train[@]}" small/$how
        for ((i = 0; i < 500; i++)); do
            [ -e small/$how/checkpoint ] && break
            sleep 0.01
        done
        cat /dev/zero >small/filler 2>/dev/null
        patience=20 finish
        ended "$how, full disk" 4 "^trainer: .*small/$how"
        find small/$how -type f | grep -v '/checkpoint$\|/train.log$\|/byte_table.bin$' &&
            fail "$how, full disk: half a file is left"
        rm small/filler
        resumed "$how, full disk" small/$how 2
        rm -r small/$how
    done
else
    echo "$name: no file system of its own to fill (needs root), skipped"
fi

# ---- a network: two of our own with a cable between them, which is slow, and then pulled out ----

# wire MACHINE ADDRESS
wire() {
    ip -n $net-$1 link set lo up && ip -n $net-$1 addr add "$2/24" dev wire$1 && ip -n $net-$1 link set wire$1 up
}
cat >in_net <<'EOS'
#!/bin/bash
MASTER_ADDR=10.77.0.1 exec ip netns exec "$NET-$RANK" "$@"
EOS
chmod +x in_net
if ip netns add $net-0 && ip netns add $net-1 && ip -n $net-0 link add wire0 type veth peer name wire1 netns $net-1 &&
    wire 0 10.77.0.1 && wire 1 10.77.0.2; then
    export NET=$net
    if tc -n $net-0 qdisc add dev wire0 root tbf rate 20mbit burst 16kbit latency 5ms; then
        launch tcp 2 ./in_net "${train[@]}" slow ITERATIONS=40
        "${train[@]}" fast ITERATIONS=40
        if [ $status = 0 ] && [ "$(weights slow/model.safetensors)" = "$(weights fast/model.safetensors)" ]; then
            ok "a slow network with a short queue: the same weights after $seconds s"
        else
            fail "a slow network with a short queue: $(head -c 600 all.err)"
        fi
        tc -n $net-0 qdisc del dev wire0 root
    else
        echo "$name: nothing here that makes a network slow, skipped"
    fi
    COMM_TIMEOUT=2 start tcp 2 ./in_net "${train[@]}" pulled ITERATIONS=100000
    sleep 1
    ip -n $net-0 link set wire0 down
    patience=20 finish
    ended "a broken network" 4 "^trainer: .*rank [01]"
    for r in 0 1; do
        grep -q "rank $((1 - r))" rank.$r.err || fail "a broken network: rank $r says: $(cat rank.$r.err)"
    done
else
    echo "$name: no network of its own to break (needs root and ip), skipped"
fi 2>net.err
exit $failed
