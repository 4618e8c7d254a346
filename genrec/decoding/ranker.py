"""BeamRanker: model + index + settings as one thing that ranks the catalogue for histories.

In: histories as catalogue rows. Out: the best catalogue rows with their scores. The facade, the Trainer's validation and
offline evaluation all go through here.

Legend: `U` histories, `N` items, `L` levels.
"""

import numpy as np
import torch
from tqdm.auto import tqdm
from transformers import PreTrainedModel

from genrec.data.interactions import Histories, pad_histories
from genrec.decoding.beam import beam_search
from genrec.decoding.index import Allowed, CatalogueIndex
from genrec.errors import SettingError, check_integer
from genrec.models.tokens import TokenLayout, write_histories

# Memory that one decoding step may take for logits and candidates, in bytes; batches are cut to fit.
STEP_MEMORY = 512 * 2**20


class BeamRanker:
    """Ranks by catalogue-constrained beam search. `item_tokens`: [N, L], tokens of every catalogue row."""

    def __init__(
        self,
        model: PreTrainedModel,
        layout: TokenLayout,
        index: CatalogueIndex,
        item_tokens: np.ndarray,
        beam_width: int,
        max_history: int,
        name: str = "genrec",
    ) -> None:
        check_integer("beam_width", beam_width, 1, 4096)
        self.model, self.layout, self.index, self.item_tokens = model, layout, index, item_tokens
        self.beam_width, self.max_history, self.name = beam_width, max_history, name

    def rank(
        self,
        histories: Histories,
        k: int,
        exclude_seen: bool,
        only_rows: np.ndarray | None = None,
        excluded_rows: np.ndarray | None = None,
        beam_width: int | None = None,
        progress: bool = False,
    ) -> tuple[np.ndarray, np.ndarray]:
        """The best `k` allowed items per history.

        only_rows: catalogue rows that may come back (None: all). excluded_rows: rows that may not, for every history.
        exclude_seen: leave out each history's own items (all of them, also those older than the model sees).
        Returns (rows int64 [U, k], -1 where fewer are left; scores float32 [U, k], -inf there).
        """
        width = self.beam_width if beam_width is None else beam_width
        check_integer("beam_width", width, 1, 4096)
        check_integer("k", k, 1)
        if k > width:
            raise SettingError(f"k must be at most beam_width, {width}, got {k}. Ask for fewer items or raise beam_width.")
        device = next(self.model.parameters()).device
        index = self.index.to(device)
        rows = np.full((len(histories), k), -1, np.int64)
        scores = np.full((len(histories), k), -np.inf, np.float32)
        # Histories of one length together: no padding, and answers do not depend on who else is asked about.
        order = np.argsort(-np.minimum(histories.lengths, self.max_history), kind="stable")
        was_training = self.model.training
        self.model.eval()
        with tqdm(total=len(order), desc=f"Ranking with {self.name}", disable=not progress, leave=False) as bar:
            for batch in np.array_split(order, max(1, -(-len(order) // self._batch_size(width)))):
                if not len(batch):
                    continue
                full = [histories[user] for user in batch]
                tokens, mask = write_histories([h[-self.max_history :] for h in full], self.item_tokens, self.layout)
                left_out = _left_out(full if exclude_seen else None, excluded_rows, len(batch))
                found, found_scores = beam_search(
                    self.model,
                    torch.from_numpy(tokens).to(device),
                    torch.from_numpy(mask).to(device),
                    index,
                    self.layout,
                    k,
                    width,
                    Allowed.of(index, only_rows, left_out),
                )
                rows[batch], scores[batch] = found.cpu().numpy(), found_scores.cpu().numpy()
                bar.update(len(batch))
        self.model.train(was_training)
        return rows, scores

    def _batch_size(self, width: int) -> int:
        vocabulary = self.model.get_output_embeddings().weight.shape[0]
        return int(np.clip(STEP_MEMORY // (4 * width * max(vocabulary, max(self.layout.sizes)) * 2), 1, 256))


def _left_out(seen: list[np.ndarray] | None, excluded: np.ndarray | None, users: int) -> np.ndarray | None:
    """Rows each user may not get, padded with -1: int64 [users, E], or None."""
    parts = []
    if seen is not None:
        parts.append(pad_histories(seen, -1))
    if excluded is not None and len(excluded):
        parts.append(np.broadcast_to(np.asarray(excluded, np.int64), (users, len(excluded))))
    return np.concatenate(parts, axis=1) if parts else None
