# many.sh - jobs of several processes on this machine, over the loopback only; sourced behind lib.sh.
#
#   $launchers           which there are: tcp, and mpi where mpirun is and the programs were built with it
#   launch HOW N CMD...  run CMD as a job of N ranks and wait. $dir/all.out and $dir/all.err get what all ranks
#                        print (tcp: $dir/rank.N.out and rank.N.err what rank N does), $status is the job's exit
#                        status (tcp: of the lowest rank whose is not 0), $seconds its time, $late 1 if it had to be
#                        killed after $patience seconds (60)
#   start HOW N CMD...   the same without waiting: $pids are the ranks' processes; then call `finish`
#   signal RANK SIGNAL   to a rank of a job that was started
#   named NAME PATTERN   for a job that was started and must fail in time: waits 20 s at most; PATTERN is who is
#                        to be named
#   $dir/as_rank         in CMD, as the first words: `as_rank N FROM TO` puts TO in the place of the argument FROM
#                        on rank N alone

export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 OMPI_MCA_rmaps_base_oversubscribe=1
export OMPI_MCA_hwloc_base_binding_policy=none OMPI_MCA_btl=self,vader OMPI_MCA_btl_vader_single_copy_mechanism=none
export OMPI_MCA_oob_tcp_if_include=lo OMPI_MCA_orte_base_help_aggregate=0
export PRTE_MCA_rmaps_default_mapping_policy=:oversubscribe PRTE_MCA_hwloc_default_binding_policy=none # Open MPI 5
# A job in a job would join the outer one.
for key in $(env | sed -n 's/^\(OMPI_COMM_[A-Z_]*\|PMIX\?_[A-Z_]*\|SLURM_[A-Z_]*\|TORCHELASTIC_[A-Z_]*\)=.*/\1/p') \
    COMM COMM_JOB COMM_PORT COMM_TIMEOUT COMM_PATIENCE RANK WORLD_SIZE LOCAL_RANK MASTER_ADDR MASTER_PORT; do
    unset "$key"
done

# A rank that is to be stopped must be found: no rank is a child of a shell that is one itself.
cat >"$dir/as_rank" <<'EOS'
#!/bin/bash
me=${OMPI_COMM_WORLD_RANK:-$RANK} who=$1 from=$2 to=$3
shift 3
args=()
for a in "$@"; do
    [ "$me" = "$who" ] && [ "$a" = "$from" ] && a=$to
    args+=("$a")
done
exec "${args[@]}"
EOS
chmod +x "$dir/as_rank"

free_port() { # below those that the kernel gives away
    while :; do
        port=$((20000 + RANDOM % 12000))
        (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null || break
    done
}

now() { date +%s%N; }

start() {
    how=$1 ranks=$2
    shift 2
    began=$(now)
    rm -f "$dir"/rank.*
    pids=
    if [ "$how" = mpi ]; then
        mpirun -np "$ranks" "$@" >"$dir/all.out" 2>"$dir/all.err" </dev/null &
        job=$!
        for _ in $(seq 200); do # its children are the ranks, once they are there
            # shellcheck disable=SC2046
            set -- $(pgrep -P "$job")
            [ $# = "$ranks" ] && break
            kill -0 "$job" 2>/dev/null || break
            sleep 0.02
        done
        pids=$*
    else
        free_port
        for ((r = 0; r < ranks; r++)); do
            RANK=$r WORLD_SIZE=$ranks LOCAL_RANK=$r MASTER_ADDR=127.0.0.1 MASTER_PORT=$port \
                "$@" >"$dir/rank.$r.out" 2>"$dir/rank.$r.err" </dev/null &
            pids="$pids $!"
        done
    fi
}

# A rank that was stopped does not end by itself: it is not waited for, but killed at last. (Standard error is for
# the shell, which comments on processes that are killed.)
finish() {
    late=0
    # shellcheck disable=SC2086
    waited=$([ "$how" = mpi ] && echo "$job" || echo $pids)
    end=$(($(date +%s) + ${patience:-60}))
    # shellcheck disable=SC2086
    while ps -o stat= -p "$(echo $waited | tr ' ' ,)" | grep -q '^[^ZT]'; do
        if [ "$(date +%s)" -ge "$end" ]; then
            late=1
            break
        fi
        sleep 0.02
    done
    seconds=$((($(now) - began) / 1000000000))
    # shellcheck disable=SC2086
    kill -KILL $waited $pids
    status=0
    for p in $waited; do
        got=0
        wait "$p" || got=$?
        [ "$status" = 0 ] && status=$got
    done
    if [ "$how" = tcp ]; then
        cat "$dir"/rank.*.out >"$dir/all.out"
        cat "$dir"/rank.*.err >"$dir/all.err"
    fi
} 2>/dev/null

launch() {
    start "$@"
    finish
}

# mpirun starts its ranks in order.
signal() {
    # shellcheck disable=SC2086
    kill "-$2" "$(echo $pids | cut -d' ' -f$(($1 + 1)))" 2>/dev/null
}

named() {
    patience=20 finish
    if [ $late = 1 ] || [ $status = 0 ]; then
        fail "$1: status $status after $seconds s"
    elif ! grep -q "$2" all.err; then
        fail "$1: nobody names it: $(head -c 600 all.err)"
    else
        ok "$1: ended after $seconds s"
    fi
}

launchers=tcp
if command -v mpirun >/dev/null; then
    launch mpi 2 "$BIN/verify" score /nonexistent --data /nonexistent
    if grep -q 'verify: /nonexistent' "$dir/all.err"; then
        launchers="tcp mpi"
    else
        echo "$name: not under mpirun: $(grep -m 1 . "$dir/all.err")"
    fi
else
    echo "$name: there is no mpirun"
fi
