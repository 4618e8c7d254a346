"""Beam search without the catalogue, to say how much of it would have been illegal.

In: a ranker and histories. Out: the share of the k best token sequences that spell no item. Papers that decode without a
constraint report it; nothing that answers users calls this.

    illegal_rate(recommender.ranker, histories, k=10).rate

Legend: `B` users, `W` beams, `L` levels, `V` vocabulary.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from tqdm.auto import tqdm

from genrec.data.interactions import Histories
from genrec.decoding.ranker import STEP_MEMORY, BeamRanker
from genrec.errors import SettingError, check_integer


@dataclass(frozen=True)
class IllegalRate:
    """sequences: how many were looked at, k per user; illegal: how many of them spell no item of the catalogue."""

    sequences: int
    illegal: int

    @property
    def rate(self) -> float:
        return self.illegal / max(1, self.sequences)


def illegal_rate(
    ranker: BeamRanker, histories: Histories, k: int = 10, beam_width: int | None = None, progress: bool = False
) -> IllegalRate:
    """Decode every history over the whole vocabulary and check the k best sequences."""
    width = max(ranker.beam_width, k) if beam_width is None else beam_width
    check_integer("k", k, 1, width)
    vocabulary = ranker.model.get_output_embeddings().weight.shape[0]
    if k > vocabulary:
        raise SettingError(f"k must be at most the vocabulary, {vocabulary}, got {k}.")
    users = int(np.clip(STEP_MEMORY // (8 * width * vocabulary), 1, 256))
    sequences = illegal = 0
    index = ranker.snapshot.index
    for begin in tqdm(range(0, len(histories), users), desc="Decoding without constraint", disable=not progress, leave=False):
        some = histories.select(np.arange(begin, min(begin + users, len(histories))))
        tokens = unconstrained_search(ranker, some, k, width).flatten(0, 1).cpu().numpy()
        codes = tokens - ranker.layout.offsets
        spelled = ((codes >= 0) & (codes < np.array(ranker.layout.sizes))).all(axis=1)
        legal = np.zeros(len(codes), bool)
        legal[spelled] = (index.walk(torch.from_numpy(codes[spelled]))[:, -1] >= 0).numpy()
        sequences, illegal = sequences + len(legal), illegal + int((~legal).sum())
    return IllegalRate(sequences, illegal)


@torch.inference_mode()
def unconstrained_search(ranker: BeamRanker, histories: Histories, k: int, width: int) -> Tensor:
    """The k most probable sequences of `L` tokens, any tokens: int64 [B, k, L]."""
    model, layout = ranker.model, ranker.layout
    device = next(model.parameters()).device
    was_training = model.training
    model.eval()
    steps = ranker.begin(histories.to_lists(), ranker.snapshot, histories.user_ids.tolist())
    hidden = steps.hidden
    vocabulary = model.get_output_embeddings().weight.shape[0]
    paths = torch.zeros(len(histories), 1, 0, dtype=torch.int64, device=device)
    scores = torch.zeros(len(histories), 1, device=device)
    for level in range(layout.levels):
        grown = (scores.unsqueeze(-1) + ranker.head.log_probs(hidden, 0, vocabulary)).flatten(1)
        keep = k if level == layout.levels - 1 else width
        scores, chosen = grown.topk(min(keep, grown.shape[1]), dim=1)
        parents, written = chosen // vocabulary, chosen % vocabulary
        paths = torch.cat([paths.gather(1, parents.unsqueeze(-1).expand(-1, -1, level)), written.unsqueeze(-1)], dim=-1)
        if level + 1 < layout.levels:
            hidden = steps.advance(written, parents)
    model.train(was_training)
    return paths
