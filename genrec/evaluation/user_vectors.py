"""User vectors: one vector per history, from the model, or from the simplest things that could be one.

In: histories. Out: float32 [U, d], in the order of the histories. What can be read from them is measured in probes.py.
The mean of a history's item vectors is `genrec.tokenizers.das.user_vectors`.

Legend: `U` histories, `d` width, `N` items, `H` hidden size of the model.
"""

import numpy as np
import torch

from genrec.data.interactions import Histories
from genrec.decoding.one_pass import OnePassRanker
from genrec.decoding.ranker import BeamRanker
from genrec.errors import check_integer

BATCH = 64  # histories read at once


@torch.inference_mode()
def user_vectors_of(ranker: BeamRanker | OnePassRanker, histories: Histories) -> np.ndarray:
    """The model's last hidden state after each history, before any code of the next item: [U, H]. A one-pass model has one
    state per slot, side by side.

    The model reads what it reads when it ranks: the latest `max_history` items and, where it has one, the user index.
    """
    if isinstance(ranker, OnePassRanker):
        return _one_pass_vectors(ranker, histories)
    model = ranker.model
    kept = np.minimum(histories.lengths, ranker.max_history)
    order = np.argsort(-kept, kind="stable")  # histories of one length together: little padding
    found: list[np.ndarray] = [np.zeros(0, np.float32)] * len(histories)
    was_training = model.training
    model.eval()
    for begin in range(0, len(order), BATCH):
        users = order[begin : begin + BATCH]
        names = histories.user_ids[users].tolist()
        steps = ranker.begin([histories[user] for user in users], ranker.snapshot, names)
        for user, vector in zip(users, steps.hidden[:, 0].float().cpu().numpy(), strict=True):
            found[user] = vector
    model.train(was_training)
    return np.stack(found)


def _one_pass_vectors(ranker: OnePassRanker, histories: Histories) -> np.ndarray:
    snapshot, was_training = ranker.snapshot.to(ranker.device), ranker.model.training
    ranker.model.eval()
    users = [histories[user] for user in range(len(histories))]
    found = [ranker.states(users[begin : begin + BATCH], snapshot).flatten(1).cpu() for begin in range(0, len(users), BATCH)]
    ranker.model.train(was_training)
    return torch.cat(found).numpy()


def last_item(histories: Histories, item_vectors: np.ndarray) -> np.ndarray:
    """The vector of the last item of each history: [U, d], zero for an empty one. item_vectors: [N, d]."""
    found = np.zeros((len(histories), item_vectors.shape[1]), np.float32)
    some = histories.lengths > 0
    found[some] = item_vectors[histories.items[histories.indptr[1:][some] - 1]]
    return found


def random_vectors(histories: Histories, width: int, seed: int) -> np.ndarray:
    """Normal random numbers, the same for the same user: [U, width]. What a probe finds in them is not there."""
    check_integer("width", width, 1)
    names, owner = np.unique(histories.user_ids.astype(str), return_inverse=True)
    drawn = np.random.default_rng(seed).standard_normal((len(names), width), np.float32)
    return drawn[owner.reshape(-1)]
