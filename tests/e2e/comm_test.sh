#!/bin/bash
# comm_test.sh - the communicator under mpirun: the jobs and faults of tests/unit/comm_jobs.h, which the unit tests run
# over TCP.
#
# Guards against: exchanges that differ between the two ways to connect, a job that hangs under mpirun when a rank dies
# or stops or leaves, a fault that nobody puts a name to, a long computation that is taken for a fault.
set -u
name="comm"
. "$(dirname "$0")/lib.sh"
job=${B:-build}/tests/unit/comm_test
[ -x "$job" ] || { echo "skip $name: $job is not built"; exit 0; }
command -v mpirun >/dev/null || { echo "skip $name: there is no mpirun"; exit 0; }
ldd "$job" | grep -q libmpi || { echo "skip $name: built without MPI"; exit 0; }
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 OMPI_MCA_rmaps_base_oversubscribe=1 COMM_TIMEOUT=3
unset COMM COMM_PATIENCE RANK WORLD_SIZE

# all CASE N TEXT COMMAND...: the command succeeds and N of its lines begin with TEXT.
all() {
    case=$1 n=$2 text=$3 got=0
    shift 3
    timeout 60 "$@" >"$dir/out.txt" 2>&1 </dev/null || got=$?
    if [ "$got" = 0 ] && [ "$(grep -c "^$text" "$dir/out.txt")" = "$n" ]; then
        ok "$case"
    else
        fail "$case: exit status $got: $(head -c 600 "$dir/out.txt")"
    fi
}
for n in 2 3; do
    for j in exchange gather agree last; do
        all "$j, $n ranks" "$n" "$j mpi [0-9] of $n: done" mpirun -np "$n" "$job" "$j"
    done
done
all "one process needs no MPI" 1 "exchange single 0 of 1: done" mpirun -np 1 "$job" exchange
all "mpirun, but over TCP" 3 "exchange tcp [0-9] of 3: done" env COMM=tcp MASTER_ADDR=127.0.0.1 \
    COMM_PORT=$((20000 + $$ % 10000)) mpirun -np 3 "$job" exchange

# fault WHAT STATUS TEXT: the job ends by itself, with this exit status (-: any but 0), and somebody says TEXT.
fault() {
    got=0
    timeout 60 mpirun -np 3 "$job" fault "$1" >"$dir/out.txt" 2>&1 </dev/null || got=$?
    if [ "$got" = 124 ] || { [ "$2" = - ] && [ "$got" = 0 ]; } || { [ "$2" != - ] && [ "$got" != "$2" ]; }; then
        fail "$1: exit status $got, expected $2: $(head -c 600 "$dir/out.txt")"
    elif ! grep -q -- "$3" "$dir/out.txt"; then
        fail "$1: nothing says \"$3\": $(head -c 600 "$dir/out.txt")"
    else
        ok "$1: $3"
    fi
}
fault kill - "rank 1 .*signal 9"                              # mpirun says it
fault exit 3 "Exit code: *3"
fault abort 3 "comm_test: rank 1: shard 7 is short"
fault leave 4 "comm_test: rank [02]: rank 1 left the job before its end"
fault stop 4 "comm_test: rank [02]: nothing heard from rank 1 for 3 s"
COMM_TIMEOUT=1.5 fault busy 0 "fault mpi 1 of 3: done"
COMM_TIMEOUT=1 COMM_PATIENCE=1.2 fault busy 4 "comm_test: rank [02]: waited 1.2 s for rank 1"

cp "$job" "$dir/other" && echo >>"$dir/other"
got=0
timeout 60 mpirun -np 1 "$job" gather : -np 1 "$dir/other" gather >"$dir/out.txt" 2>&1 </dev/null || got=$?
if [ "$got" = 3 ] && grep -q "rank 1 runs another build" "$dir/out.txt"; then
    ok "another build"
else
    fail "another build: exit status $got: $(head -c 600 "$dir/out.txt")"
fi
exit $failed
