#!/usr/bin/env bash
#SBATCH --job-name=genrec-fit
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=32
#SBATCH --time=24:00:00
#SBATCH --requeue
#SBATCH --open-mode=append
# Fit on several machines under Slurm. One task a machine, in which torchrun starts a process a GPU (docs/training.md).
#   sbatch --nodes 4 training/slurm.sh --items items.parquet --interactions interactions.parquet --out runs/shop
# Change the lines above to what your cluster has, or override them as here. All other flags are those of `genrec fit`. The tables
# and --out must lie on a file system that all machines share. A job that is put back into the queue goes on where it was.
set -euo pipefail

hosts=$(scontrol show hostnames "$SLURM_JOB_NODELIST")
first=${hosts%%$'\n'*} # not `| head -n 1`: it closes the pipe while scontrol writes, and pipefail would end the job
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-4}"
exec srun "${PYTHON:-python}" -m torch.distributed.run \
    --nnodes "$SLURM_NNODES" --nproc-per-node "${PROCESSES:-gpu}" \
    --rdzv-id "$SLURM_JOB_ID" --rdzv-backend c10d --rdzv-endpoint "$first:${PORT:-29500}" \
    -m genrec.cli fit "$@"
