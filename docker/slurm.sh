#!/usr/bin/env bash
# One sweep on some nodes of a Slurm cluster:  sbatch docker/slurm.sh SWEEP [further options of `splatsweep run`]
#
# Ray runs between the nodes of this job, with a token of its own.  Two minutes before the time is up Slurm sends
# SIGTERM to this script: the trials stop behind a checkpoint, and the same command goes on with them.
# Set SPLATSWEEP_HOME to a folder that all nodes see; `splatsweep` has to be on the PATH.
#SBATCH --job-name=splatsweep
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=8
#SBATCH --gpus-per-task=1
#SBATCH --time=24:00:00
#SBATCH --signal=B:TERM@120
set -euo pipefail

sweep=${1:?usage: sbatch docker/slurm.sh SWEEP [options]}
shift
: "${SPLATSWEEP_HOME:?set it to a folder that all nodes see}"

umask 077
RAY_AUTH_TOKEN=$(od -An -N32 -tx1 /dev/urandom | tr -d ' \n')
export RAY_AUTH_TOKEN RAY_AUTH_MODE=token RAY_USAGE_STATS_ENABLED=0 SPLATSWEEP_HOME

mapfile -t nodes < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
port=$((20000 + SLURM_JOB_ID % 10000))
head=$(srun --nodes=1 --ntasks=1 --nodelist="${nodes[0]}" hostname --ip-address | awk '{print $1}')
export RAY_ADDRESS="$head:$port"

start_node() { # NODE [options of `ray start`]
    local node=$1
    shift
    srun --nodes=1 --ntasks=1 --nodelist="$node" --overlap \
        ray start --block --disable-usage-stats --num-cpus="$SLURM_CPUS_PER_TASK" "$@" &
}

start_node "${nodes[0]}" --head --node-ip-address="$head" --port="$port" --include-dashboard=false
until ray status > /dev/null 2>&1; do sleep 2; done
for node in "${nodes[@]:1}"; do
    start_node "$node" --address="$RAY_ADDRESS"
done

splatsweep run "$sweep" "$@" &
driver=$!
trap 'kill -TERM "$driver"' TERM
# A trap ends the first wait; the second one is for the checkpoints.
wait "$driver" || wait "$driver" && code=0 || code=$?
ray stop > /dev/null 2>&1 || true
exit "$code"
