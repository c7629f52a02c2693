#!/bin/bash
# comm_net_test.sh - ranks on two "machines": two network namespaces of the test's own, joined by a virtual cable.
# Needs root and ip (iproute2); says so when it cannot be.
#
# Guards against: a machine whose own name means its loopback (Debian's 127.0.1.1), so that others are told an address
# where nobody is; a cable that is pulled and a job that waits for it.
set -u
name=comm_net
. "$(dirname "$0")/lib.sh"
job=${B:-build}/tests/unit/comm_test
[ -x "$job" ] || { echo "skip $name: $job is not built"; exit 0; }
here=pgolf$$a there=pgolf$$b
clean() {
    ip netns del "$here" 2>/dev/null
    ip netns del "$there" 2>/dev/null
    rm -rf "$dir"
}
trap clean EXIT
{ ip netns add "$here" && ip netns add "$there" &&
    ip link add near netns "$here" type veth peer name far netns "$there" &&
    ip -n "$here" addr add 10.99.7.1/24 dev near && ip -n "$there" addr add 10.99.7.2/24 dev far &&
    ip -n "$here" link set lo up && ip -n "$here" link set near up &&
    ip -n "$there" link set lo up && ip -n "$there" link set far up; } >"$dir/out.txt" 2>&1 ||
    { echo "skip $name: no network namespaces here: $(head -n 1 "$dir/out.txt")"; exit 0; }
printf '127.0.0.1 localhost\n127.0.1.1 machine-here\n' >"$dir/$here"
printf '127.0.0.1 localhost\n10.99.7.1 machine-here\n' >"$dir/$there"
unset COMM COMM_PORT COMM_JOB COMM_PATIENCE OMPI_COMM_WORLD_SIZE PMI_SIZE
export WORLD_SIZE=4 MASTER_ADDR=machine-here MASTER_PORT=29500

# rank NAMESPACE RANK JOB [WHAT]: in the background, with the machine's own /etc/hosts.
rank() {
    RANK=$2 ip netns exec "$1" unshare -m sh -c 'mount --bind "$0" /etc/hosts && exec "$@"' "$dir/$1" \
        timeout 60 "$job" "$3" ${4:+"$4"} >"$dir/rank$2" 2>&1 &
}
start() {
    rank "$here" 0 "$@"
    rank "$here" 1 "$@"
    rank "$there" 2 "$@"
    rank "$there" 3 "$@"
}

start exchange
wait
if [ "$(cat "$dir"/rank? | grep -c '^exchange tcp [0-3] of 4: done$')" = 4 ]; then
    ok "two machines, one of which calls itself 127.0.1.1"
else
    fail "two machines: $(cat "$dir"/rank?)"
fi

# Rank 1 computes for 2.2 s, in which the cable is pulled; both sides lose two ranks.
export COMM_TIMEOUT=1.5
start fault busy
for i in $(seq 300); do
    [ "$(cat "$dir"/rank? | grep -c joined)" = 4 ] && break
    sleep 0.1
done
ip -n "$there" link set far down
wait
if [ "$(cat "$dir"/rank? | grep -c 'nothing heard from rank')" -ge 2 ] && ! grep -q 'rank [23] gave up' "$dir/rank0"; then
    ok "the cable is pulled: $(grep -ho 'nothing heard from rank.* for' "$dir"/rank? | sort -u | paste -sd ';')"
else
    fail "the cable is pulled: $(cat "$dir"/rank?)"
fi
exit $failed
