#!/usr/bin/env bash
# Fit on one GPU of this machine, the first one; without a GPU, on its CPU.
#   bash training/one_gpu.sh --items items.parquet --interactions interactions.parquet --out runs/shop
# All flags are those of `genrec fit`. Another GPU: CUDA_VISIBLE_DEVICES=3. Another Python than the first on the PATH:
# PYTHON=.venv/bin/python. A fit that was killed goes on when the same command is run again.
set -euo pipefail

export CUDA_VISIBLE_DEVICES="${CUDA_VISIBLE_DEVICES-0}"
exec "${PYTHON:-python}" -m genrec.cli fit "$@"
