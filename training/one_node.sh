#!/usr/bin/env bash
# Fit on all GPUs of this machine, a process each (docs/training.md).
#   bash training/one_node.sh --items items.parquet --interactions interactions.parquet --out runs/shop
# All flags are those of `genrec fit`. Fewer GPUs: PROCESSES=2. On a machine without, that starts two processes on its CPU. A fit
# that was killed goes on when the same command is run again, with as many processes.
set -euo pipefail

exec "${PYTHON:-python}" -m torch.distributed.run --standalone --nproc-per-node "${PROCESSES:-gpu}" -m genrec.cli fit "$@"
