"""`genrec fit` in the workers of Ray Train, on one machine or a cluster.

    python -m genrec.ray_train --workers 4 -- --items items.parquet --interactions events.parquet --out runs/shop

Behind `--` stand the flags of `genrec fit`. Each worker is one of several processes that train together
(training/processes.py), on a GPU of its own unless `--no-gpu`. Files must be readable under the same path on every machine.
Needs the extra `ray`.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from typing import Any

from genrec.errors import MissingDependencyError, SettingError, check_integer


def main(arguments: Sequence[str] | None = None) -> int:
    """Start the workers and wait for the bundle; the exit code: 0 done, 2 it could not be done."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    cut = given.index("--") if "--" in given else len(given)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, default=1, metavar="N", help="processes (default: %(default)s)")
    parser.add_argument("--cpus", type=int, default=1, metavar="N", help="cores of each (default: %(default)s)")
    parser.add_argument("--no-gpu", action="store_true", help="train on CPUs")
    asked = parser.parse_args(given[:cut])
    try:
        check_integer("--workers", asked.workers, 1)
        check_integer("--cpus", asked.cpus, 1)
        if not given[cut + 1 :]:
            raise SettingError("The flags of genrec fit stand behind --, such as: -- --items items.csv --interactions ...")
        start(given[cut + 1 :], asked.workers, asked.cpus, not asked.no_gpu)
    except (SettingError, MissingDependencyError) as error:
        print(f"genrec.ray_train: {error}", file=sys.stderr)
        return 2
    return 0


def start(flags: list[str], workers: int, cpus: int, gpu: bool) -> None:
    """Run `genrec fit` with these flags in so many workers. Raises what Ray raises when one of them fails."""
    try:
        from ray.train import ScalingConfig
        from ray.train.torch import TorchConfig, TorchTrainer
    except ImportError as error:
        raise MissingDependencyError(f"Ray Train needs the extra `ray`: pip install 'genrec[ray]' ({error}).") from None
    from genrec.training.processes import PATIENCE

    TorchTrainer(
        work,
        train_loop_config={"flags": flags, "folder": os.getcwd()},
        torch_config=TorchConfig(timeout_s=int(PATIENCE.total_seconds())),
        scaling_config=ScalingConfig(num_workers=workers, use_gpu=gpu, resources_per_worker={"CPU": cpus}),
    ).fit()


def work(config: dict[str, Any]) -> None:
    """What each worker does, in the folder that the flags were written for."""
    from genrec.cli import main as cli

    os.chdir(config["folder"])
    if cli(["fit", *config["flags"]]):
        raise RuntimeError("genrec fit failed; what it said stands above.")


if __name__ == "__main__":
    sys.exit(main())
