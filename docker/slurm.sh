#!/usr/bin/env bash
# One sweep on some nodes of a Slurm cluster:  sbatch docker/slurm.sh SWEEP [further options of `splatsweep run`]
#
# Ray runs between the nodes of this job, with a token of its own.  Two minutes before the time is up Slurm sends
# SIGUSR1 to this script: the trials write a checkpoint and stop, the job goes back into the queue by itself, and goes on
# with them when it runs again.  With `sbatch --no-requeue`, or on SIGTERM, it ends there; the same command goes on.
# Set SPLATSWEEP_HOME to a folder that all nodes see; `splatsweep` has to be on the PATH.
#SBATCH --job-name=splatsweep
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=8
#SBATCH --gpus-per-task=1
#SBATCH --time=24:00:00
#SBATCH --signal=B:USR1@120
#SBATCH --requeue
#SBATCH --open-mode=append
set -euo pipefail

sweep=${1:?usage: sbatch docker/slurm.sh SWEEP [options]}
shift
: "${SPLATSWEEP_HOME:?set it to a folder that all nodes see}"

RAY_AUTH_TOKEN=$(od -An -N32 -tx1 /dev/urandom | tr -d ' \n')
export RAY_AUTH_TOKEN RAY_AUTH_MODE=token RAY_USAGE_STATS_ENABLED=0 SPLATSWEEP_HOME

# Signals may come at any moment, also before the sweep runs.
driver='' is_stopped=false is_time_up=false is_told=false
stop() {
    is_stopped=true
    if [ -n "$driver" ] && ! "$is_told"; then
        is_told=true # a second signal would end the sweep without checkpoints
        kill -TERM "$driver" 2> /dev/null || true
    fi
}
trap stop TERM
trap 'is_time_up=true; stop' USR1

mapfile -t nodes < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
port=$((20000 + SLURM_JOB_ID % 10000))
# Debian's /etc/hosts gives a node's own name a loopback address, which the others cannot reach.
address='{ hostname --ip-address; hostname --all-ip-addresses; } | tr " " "\n" | grep -v -m 1 -e "^127\." -e "^::1$" -e "^$"'
head=$(srun --nodes=1 --ntasks=1 --nodelist="${nodes[0]}" bash -c "$address")
export RAY_ADDRESS="$head:$port"

start_node() { # NODE [options of `ray start`]
    local node=$1
    shift
    # Slurm 22.05 to 23.02 gives a step one CPU, unless the step itself asks for more.
    srun --nodes=1 --ntasks=1 --cpus-per-task="$SLURM_CPUS_PER_TASK" --nodelist="$node" --overlap \
        ray start --block --disable-usage-stats --num-cpus="$SLURM_CPUS_PER_TASK" "$@" &
}

start_node "${nodes[0]}" --head --node-ip-address="$head" --port="$port" --include-dashboard=false
head_node=$!
deadline=$((SECONDS + 120))
until "$is_stopped" || ray status > /dev/null 2>&1; do
    if ! kill -0 "$head_node" 2> /dev/null || ((SECONDS > deadline)); then
        echo "Ray's head did not start on ${nodes[0]}; the output above may tell why." >&2
        exit 1
    fi
    sleep 2
done

stopped=130 terminated=143 # the latter before the sweep minds signals
code=$stopped
if ! "$is_stopped"; then
    for node in "${nodes[@]:1}"; do
        start_node "$node" --address="$RAY_ADDRESS"
    done
    splatsweep run "$sweep" "$@" &
    driver=$!
    if "$is_stopped"; then stop; fi
    while kill -0 "$driver" 2> /dev/null; do
        wait "$driver" || true # each signal ends it
    done
    wait "$driver" && code=0 || code=$?
fi
# Slurm ends Ray with this script; `ray stop` would also end that of other jobs on this node.

if "$is_time_up" && ((code == stopped || code == terminated)); then
    if scontrol show job "$SLURM_JOB_ID" | grep -q 'Requeue=1'; then
        echo "The time is up; the job goes back into the queue (restart $((${SLURM_RESTART_COUNT:-0} + 1)))."
        scontrol requeue "$SLURM_JOB_ID"
    else
        echo "The time is up; the same sbatch command goes on." # not "$0": Slurm runs a copy, which it deletes
    fi
fi
exit "$code"
