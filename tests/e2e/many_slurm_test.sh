#!/bin/bash
# many_slurm_test.sh - training and scoring under Slurm, which this test sets up for itself: two nodes of one machine,
# each with a network and a name of its own, and a cable between them. Needs root, Slurm's daemons and munge (Debian:
# slurmctld slurmd slurm-client munge); nothing outside its own namespaces is started, stopped or changed.
#
# With arguments it runs these there instead of the cases, in the present folder:
#     bash tests/e2e/many_slurm_test.sh srun -N 2 -n 3 bin/verify score ...
#
# Guards against: ranks that srun starts and that do not find one another, or take each other for strangers, or each
# itself for the whole job; steps that get into each other's way; a step that hangs when one rank is gone, or does not
# say which; a cancelled job that leaves no checkpoint; output once per rank.
set -u
name=many_slurm
for p in slurmctld slurmd srun sbatch munged ip nsenter; do
    command -v $p >/dev/null || { echo "skip $name: there is no $p"; exit 0; }
done
[ "$(id -u)" = 0 ] || { echo "skip $name: needs root"; exit 0; }
own=(unshare --mount --pid --fork --mount-proc --net --uts --kill-child)
if [ "${SLURM_TEST_INSIDE:-}$$" != inside1 ]; then
    "${own[@]}" true 2>/dev/null || { echo "skip $name: no namespaces of its own"; exit 0; }
    SLURM_TEST_INSIDE=inside exec "${own[@]}" bash "$0" "$@"
fi
unset SLURM_TEST_INSIDE
. "$(dirname "$0")/lib.sh"
for key in $(env | sed -n 's/^\(OMPI_[A-Z_]*\|PMIX\?_[A-Z_]*\|SLURM_[A-Z_]*\|SBATCH_[A-Z_]*\)=.*/\1/p') COMM COMM_JOB \
    COMM_PORT COMM_TIMEOUT COMM_PATIENCE RANK WORLD_SIZE LOCAL_RANK MASTER_ADDR MASTER_PORT; do
    unset "$key"
done
# This shell is the first process of its name space: -1 is all the others of it, and nobody else.
trap 'exec 2>/dev/null; kill -KILL -1; wait; rm -rf "$dir"' EXIT
trap 'exit 1' INT TERM

# ---- two nodes ----

mkdir "$dir/munge" "$dir/state" "$dir/spool.n1" "$dir/spool.n2" "$dir/tmp.n1" "$dir/tmp.n2"
printf '127.0.0.1 localhost\n10.78.0.1 n1\n10.78.0.2 n2\n' >"$dir/hosts"
mount --make-rprivate / && mount --bind "$dir/hosts" /etc/hosts
unshare --net --uts sleep infinity &
other=$!
on_n2() { nsenter --net --uts --target $other "$@"; }
for _ in $(seq 100); do
    [ "$(readlink /proc/$other/ns/net)" = "$(readlink /proc/self/ns/net)" ] || break
    sleep 0.02
done
hostname n1
on_n2 hostname n2
ip link set lo up
on_n2 ip link set lo up
ip link add wire1 type veth peer name wire2 netns $other
ip addr add 10.78.0.1/24 dev wire1
on_n2 ip addr add 10.78.0.2/24 dev wire2
ip link set wire1 up
on_n2 ip link set wire2 up

# The nodes claim more cores than there are, and a /tmp each: what Slurm puts there has the same name on both.
cat >"$dir/slurm.conf" <<CONF
ClusterName=test
SlurmctldHost=n1
SlurmUser=root
AuthType=auth/munge
CredType=cred/munge
AuthInfo=socket=$dir/munge/socket
StateSaveLocation=$dir/state
SlurmdSpoolDir=$dir/spool.%n
TmpFS=$dir/tmp.%n
SlurmctldPidFile=$dir/slurmctld.pid
SlurmdPidFile=$dir/slurmd.%n.pid
SlurmctldLogFile=$dir/slurmctld.log
SlurmdLogFile=$dir/slurmd.%n.log
SlurmdParameters=config_overrides
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SwitchType=switch/none
MpiDefault=none
KillWait=5
ReturnToService=2
NodeName=n1,n2 CPUs=8 State=UNKNOWN
PartitionName=all Nodes=n1,n2 Default=YES State=UP OverSubscribe=YES
CONF
export SLURM_CONF=$dir/slurm.conf
(umask 077 && head -c 128 /dev/urandom >"$dir/munge.key")
chmod 755 "$dir" "$dir/munge"
munged --force --key-file="$dir/munge.key" --socket="$dir/munge/socket" --pid-file="$dir/munge/pid" \
    --log-file="$dir/munge/log" --seed-file="$dir/munge/seed" >"$dir/munged.out" 2>&1
slurmctld -D >"$dir/slurmctld.out" 2>&1 &
slurmd -D -N n1 >"$dir/slurmd.n1.out" 2>&1 &
on_n2 slurmd -D -N n2 >"$dir/slurmd.n2.out" 2>&1 &
for _ in $(seq 100); do
    [ "$(sinfo --noheader --states=idle --format=%D 2>/dev/null)" = 2 ] && break
    sleep 0.2
done
if ! timeout 30 srun -N 2 -n 2 true >"$dir/out.txt" 2>&1; then
    echo "skip $name: Slurm does not start here: $(tail -n 3 "$dir"/out.txt "$dir"/munged.out "$dir"/*.log)"
    exit 0
fi
if [ $# -gt 0 ]; then
    "$@"
    exit
fi
cd "$dir" || exit 1
pmix=$(srun --mpi=list 2>&1 | grep -ow -m 1 pmix)
[ "$pmix" ] || echo "$name: this Slurm has no PMIx"
if ldd "$BIN/trainer" | grep -q libmpi; then
    over=mpi
else
    over=tcp # whatever starts it
    echo "$name: this build has no MPI"
fi
echo "$name: $(srun --version), $(mpirun --version 2>/dev/null | head -n 1 || echo no MPI)"

# ---- the same bits ----

make_data data
make_recipe recipe.conf
cat >>recipe.conf <<'CONF'
MICRO_BATCH_TOKENS=64
ITERATIONS=60
CHECKPOINT_EVERY=25
GRAD_CLIP_NORM=1
CONF
train=("$BIN/trainer" recipe.conf DATA_PATH=data --threads 1 --quiet --out)
tensors() { tail -c +$((9 + $(st_header "$1"))) "$1" | md5sum; } # without the header, which holds the time
check "one process" "${train[@]}" one
want=$(tensors one/model.safetensors)

# as_one CASE DIR RANKS [KIND]: what was trained there, by so many ranks, is what one process trains.
as_one() {
    if ! grep -q "^world_size:$3 " "$2/train.log" ||
        [ "$(grep -o '^comm:[a-z][a-z]* ' "$2/train.log")" != "${4:+comm:$4 }" ]; then
        fail "$1: not $3 ranks${4:+ over $4}: $(grep '^world_size\|^comm:' "$2/train.log")"
    elif [ "$(tensors "$2/model.safetensors")" != "$want" ]; then
        fail "$1: other weights than one process"
    else
        ok "$1: $3 ranks${4:+ over $4}, the weights of one process"
    fi
}

# launch N ARGUMENTS...: srun with these; all.txt, $status.
launch() {
    status=0
    timeout 100 srun "$@" >all.txt 2>&1 </dev/null || status=$?
}

score=("$BIN/verify" score one/model.safetensors --data data --eval sliding --threads 1)
check "one process scores" "${score[@]}" --nll one.npy
result out.txt >one.txt
i=0
while read -r ranks kind args; do
    [ "$ranks" ] || continue
    run=run-$((++i)) how="srun $args"
    # shellcheck disable=SC2086
    launch $args "${train[@]}" $run
    [ $status = 0 ] || fail "$how: status $status: $(head -c 600 all.txt)"
    as_one "$how" $run "$ranks" "$kind"
    # shellcheck disable=SC2086
    launch $args "${score[@]}" --nll $run.npy
    if [ "$status$(result all.txt)" = "0$(cat one.txt)" ]; then # one line, of rank 0
        same "$how: scores" one.npy $run.npy
    else
        fail "$how: scoring: status $status: $(head -c 600 all.txt)"
    fi
done <<CASES
2 tcp --mpi=none -N 1 -n 2
3 tcp --mpi=none -N 2 -n 3
4 tcp --mpi=pmi2 -N 2 -n 4
${pmix:+2 $over --mpi=pmix -N 1 -n 2}
${pmix:+3 $over --mpi=pmix -N 2 -n 3}
CASES

# ---- a batch of steps ----

# One after the other; then one that goes on while another one on the same machine begins and ends; then mpirun, whose
# ranks on the other node are those of a step of its own.
cat >batch.sh <<'BATCH'
#!/bin/bash
train() { "$BIN/trainer" recipe.conf DATA_PATH=data --threads 1 --quiet --out "$@"; }
export -f train
step=(srun --overlap --nodelist n1 --nodes 1)
"${step[@]}" --ntasks 2 bash -c 'train first'
srun --nodes 2 --ntasks 3 bash -c 'train second'
"${step[@]}" --ntasks 2 bash -c 'exec "$BIN/trainer" recipe.conf DATA_PATH=data ITERATIONS=1000000 --threads 1 --quiet \
    --out long' & long=$!
until grep -q '^step:5/' long/train.log; do sleep 0.1; done 2>/dev/null
"${step[@]}" --ntasks 3 bash -c 'train beside'
kill -0 $long && echo "long goes on"
scancel --signal TERM "$SLURM_JOB_ID.2"
wait $long
echo "long $?"
train alone
command -v mpirun >/dev/null || exit 0
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
mpirun -np 4 --map-by node bash -c 'train mpirun'
COMM=tcp MASTER_ADDR=n1 mpirun -np 4 --map-by node bash -c 'train mpirun-tcp'
BATCH
export BIN
timeout 120 sbatch --wait --nodes 2 --ntasks 6 --output batch.txt batch.sh >all.txt 2>&1 ||
    fail "a batch: $(head -c 600 all.txt batch.txt)"
cat batch.txt >>all.txt
as_one "a step" first 2 tcp
as_one "the next step" second 3 tcp
as_one "a step beside another" beside 3 tcp
grep -q '^long goes on$' all.txt && grep -q 'trainer: stopped at step .*resume' all.txt && grep -q '^long 4$' all.txt ||
    fail "a step beside another: $(head -c 600 all.txt)"
as_one "no step at all" alone 1
if command -v mpirun >/dev/null && [ $over = mpi ]; then
    as_one "mpirun over two nodes" mpirun 4 mpi
    as_one "mpirun over two nodes, tcp" mpirun-tcp 4 tcp
fi

# ---- faults ----

echo ITERATIONS=600 >>recipe.conf # time for something to happen
check "one process, longer" "${train[@]}" long-one
want=$(tensors long-one/model.safetensors)

# rank N: its process, of a trainer that runs.
rank() {
    for p in $(pgrep -x trainer); do
        tr '\0' '\n' <"/proc/$p/environ" | grep -qx "SLURM_PROCID=$1" && echo "$p" && return
    done
}

# begin ARGUMENTS...: srun with these (batch: job.sh) trains into $run until something happens; there is a checkpoint.
begin() {
    run=fault-$((++i))
    case $1 in
        batch) sbatch --wait --nodes 2 --ntasks 3 --output all.txt job.sh >batch.txt 2>&1 & ;;
        *) srun "$@" "${train[@]}" $run >all.txt 2>&1 </dev/null & ;;
    esac
    job=$!
    for _ in $(seq 400); do
        [ -e $run/checkpoint ] && break
        sleep 0.05
    done
    began=$(date +%s)
}

# ended CASE SECONDS STATUS TEXT: in time and with that status, nothing is left, somebody says TEXT; and what is left
# goes on to the weights of one process, with two ranks.
ended() {
    (
        sleep 90
        kill -KILL $job
    ) 2>/dev/null &
    clock=$!
    status=0
    wait $job || status=$?
    kill $clock
    wait $clock
    took=$(($(date +%s) - began))
    if [ $took -gt "$2" ] || [[ "|$3|" != *"|$status|"* ]] || ! grep -q -- "$4" all.txt; then
        fail "$1: status $status after $took s: $(head -c 900 all.txt)"
        return
    fi
    timeout 20 bash -c 'while pgrep -x trainer; do sleep 0.1; done' >left.txt || fail "$1: still there: $(cat left.txt)"
    launch -n 2 "${train[@]}" $run --resume
    if [ "$status$(tensors $run/model.safetensors)" = "0$want" ]; then
        ok "$1: ended after $took s, goes on to the same weights"
    else
        fail "$1: does not go on to the same weights: status $status: $(head -c 600 all.txt)"
    fi
}

for mpi in none $pmix; do
    # srun's own status is that of the signal. Over MPI Slurm ends the step before our ranks can say much.
    [ $mpi$over = pmixmpi ] && says='task 1: Killed' || says='trainer: rank 1 is gone'
    begin --mpi=$mpi -N 2 -n 3
    kill -KILL "$(rank 1)"
    ended "--mpi=$mpi, rank 1 killed" 10 137 "$says"
    # With PMIx: Slurm asks the others to end, which wait for rank 1; KillWait later it kills them.
    begin --mpi=$mpi --kill-on-bad-exit=1 -N 2 -n 3
    kill -KILL "$(rank 1)"
    ended "--mpi=$mpi --kill-on-bad-exit=1, rank 1 killed" 20 137 "$says"
    # One that is stopped does not end by itself: Slurm has to do it.
    COMM_TIMEOUT=2 begin --mpi=$mpi --kill-on-bad-exit=1 -N 2 -n 3
    kill -STOP "$(rank 1)"
    ended "--mpi=$mpi --kill-on-bad-exit=1, rank 1 stopped" 20 '4|137' 'trainer: nothing heard from rank 1 for 2 s'
    begin --mpi=$mpi -N 2 -n 3
    scancel "$(squeue --noheader --format=%i)"
    ended "--mpi=$mpi, scancel" 10 4 'trainer: stopped at step [0-9]*, resume with --resume'
done

# A batch that is cancelled.
{
    echo '#!/bin/bash'
    echo "exec srun ${train[*]} fault-$((i + 1))"
} >job.sh
begin batch
scancel "$(squeue --noheader --format=%i)"
ended "scancel of a batch" 10 '1|4|15|143' 'trainer: stopped at step [0-9]*, resume with --resume'

# ---- what is not shared out ----

launch -N 2 -n 3 "$BIN/verify" record nowhere
if [ $status = 3 ] && [ "$(grep -c '^verify: record is one process.s work: rank 0 does it' all.txt)" = 1 ] &&
    [ "$(grep -c '^verify: .*nowhere' all.txt)" = 1 ]; then
    ok "record: once"
else
    fail "record: status $status: $(head -c 600 all.txt)"
fi
exit $failed
