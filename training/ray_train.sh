#!/usr/bin/env bash
# Fit in the workers of Ray Train: on this machine or, where RAY_ADDRESS names one, on a cluster. Needs the extra `ray`.
#   WORKERS=4 bash training/ray_train.sh --items items.parquet --interactions interactions.parquet --out /shared/runs/shop
# All flags are those of `genrec fit`; WORKERS is how many processes, a GPU each. WORKERS=2 CPU=1 starts two on CPUs. The tables
# and --out must lie on a file system that all machines share.
set -euo pipefail

exec "${PYTHON:-python}" -m genrec.ray_train --workers "${WORKERS:-1}" ${CPU:+--no-gpu} -- "$@"
