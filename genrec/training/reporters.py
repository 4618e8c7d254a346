"""Where a training is reported to while it runs: the Hugging Face Trainer's reporters, by name.

In: names such as "tensorboard". Out: an error now rather than after an hour of other work, where one cannot be used.
"""

import os
from collections.abc import Sequence

from transformers import TrainerCallback
from transformers.integrations import INTEGRATION_TO_CALLBACK, get_available_reporting_integrations

from genrec.errors import MissingDependencyError, check_choice


def check_reporters(names: Sequence[str]) -> None:
    """Raise `SettingError` for a reporter that the Trainer does not know, `MissingDependencyError` for one whose package is not
    installed."""
    for name in names:
        check_choice("training.report_to", name, sorted(INTEGRATION_TO_CALLBACK))
        if name not in get_available_reporting_integrations():
            raise MissingDependencyError(
                f"training.report_to {name!r} needs a package that is not installed, as a rule of that name: try "
                f"`pip install {name.replace('_', '-')}`, or leave it out."
            )


def place_logs(callbacks: Sequence[TrainerCallback], folder: str) -> None:
    """Where TensorBoard's files go, unless the environment says where, which transformers reads itself."""
    for callback in callbacks:
        if isinstance(callback, INTEGRATION_TO_CALLBACK["tensorboard"]) and "TENSORBOARD_LOGGING_DIR" not in os.environ:
            callback.logging_dir = folder  # type: ignore[attr-defined]
