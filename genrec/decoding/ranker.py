"""BeamRanker: model + catalogue + settings as one thing that ranks the catalogue for histories.

In: histories as catalogue rows. Out: the best catalogue rows with their scores. The facade, the Trainer's validation and
offline evaluation all go through here.

Legend: `U` histories, `R` catalogue rows, `L` levels.
"""

from collections.abc import Sequence

import numpy as np
import torch
from tqdm.auto import tqdm
from transformers import PreTrainedModel

from genrec.data.interactions import Histories
from genrec.decoding.beam import beam_search, widths_per_level
from genrec.decoding.diversity import Selection
from genrec.decoding.snapshot import Rules, Snapshot
from genrec.decoding.steps import Head, check_model
from genrec.errors import SettingError, check_integer
from genrec.models.decoder import embedding_rows
from genrec.models.tokens import TokenLayout, write_histories

# Memory that one decoding step may take for logits and candidates, in bytes; batches are cut to fit.
STEP_MEMORY = 512 * 2**20
WIDEST = 4096


class BeamRanker:
    """Ranks by catalogue-constrained beam search."""

    def __init__(
        self,
        model: PreTrainedModel,
        layout: TokenLayout,
        snapshot: Snapshot,
        beam_width: int,
        max_history: int,
        name: str = "genrec",
    ) -> None:
        check_integer("beam_width", beam_width, 1, WIDEST)
        rows = embedding_rows(model)
        if rows < layout.vocabulary_size:
            raise SettingError(
                f"The codes need tokens up to {layout.vocabulary_size - 1}; the model has {rows} token rows. It belongs to "
                "another code table."
            )
        if tuple(snapshot.index.sizes) != tuple(layout.sizes):
            raise SettingError(
                f"The catalogue has codes per level {snapshot.index.sizes}, the model {layout.sizes}: they do not fit."
            )
        check_model(model, 1 + layout.levels * (max_history + 1))
        self.model, self.layout, self.snapshot, self.head = model, layout, snapshot, Head(model)
        self.beam_width, self.max_history, self.name = beam_width, max_history, name

    def rank(
        self,
        histories: Histories,
        k: int,
        exclude_seen: bool,
        rules: Rules | None = None,
        beam_width: int | Sequence[int] | None = None,
        progress: bool = False,
        snapshot: Snapshot | None = None,
    ) -> tuple[np.ndarray, np.ndarray]:
        """The best `k` allowed items per history.

        exclude_seen: leave out each history's own items (all of them, also those older than the model sees).
        rules: see `Rules`, made for `snapshot`. beam_width: one number, or one per level; default: the ranker's, or `k` where
        that is more. snapshot: version of the catalogue to search (default: the ranker's).
        Returns (rows int64 [U, k], -1 where fewer are left; scores float32 [U, k], -inf there).
        """
        check_integer("k", k, 1, WIDEST)
        snapshot, rules = snapshot or self.snapshot, rules or Rules()
        widths = self._widths(beam_width, k)
        rows = np.full((len(histories), k), -1, np.int64)
        scores = np.full((len(histories), k), -np.inf, np.float32)
        if not len(histories):
            return rows, scores
        # Histories of one length together: little padding.
        order = np.argsort(-np.minimum(histories.lengths, self.max_history), kind="stable")
        was_training = self.model.training
        if was_training:  # walking through all modules takes a millisecond
            self.model.eval()
        batches = np.array_split(order, -(-len(order) // self._batch_size(snapshot, widths)))
        with tqdm(total=len(order), desc=f"Ranking with {self.name}", disable=not progress, leave=False) as bar:
            for batch in batches:
                full = [histories[user] for user in batch]
                rows[batch], scores[batch] = self._rank_batch(full, k, exclude_seen, rules, widths, snapshot)
                bar.update(len(batch))
        if was_training:
            self.model.train()
        return rows, scores

    def _rank_batch(
        self, full: list[np.ndarray], k: int, exclude_seen: bool, rules: Rules, widths: list[int], snapshot: Snapshot
    ) -> tuple[np.ndarray, np.ndarray]:
        kept_out = [np.concatenate([rules.excluded, h]) if exclude_seen else rules.excluded for h in full]
        if not rules.caps:
            return self._search(full, kept_out, k, rules, widths, snapshot)
        rows = np.full((len(full), k), -1, np.int64)
        scores = np.full((len(full), k), -np.inf, np.float32)
        selections = [Selection(rules.caps) for _ in full]
        wanted = min(widths)  # so many come back unless everything allowed did
        open_users = list(range(len(full)))
        while open_users:
            closed = [np.concatenate([kept_out[u], selections[u].closed()]) for u in open_users]
            found, found_scores = self._search([full[u] for u in open_users], closed, wanted, rules, widths, snapshot)
            still = []
            for user, mine, its_scores in zip(open_users, found, found_scores, strict=True):
                selections[user].take(mine, its_scores, k)
                if len(selections[user].rows) < k and (mine >= 0).all():
                    still.append(user)
            open_users = still
        for user, selection in enumerate(selections):
            best = np.argsort(-np.array(selection.scores), kind="stable")
            rows[user, : len(best)] = np.array(selection.rows, np.int64)[best]
            scores[user, : len(best)] = np.array(selection.scores)[best]
        return rows, scores

    def _search(
        self, full: list[np.ndarray], kept_out: list[np.ndarray], k: int, rules: Rules, widths: list[int], snapshot: Snapshot
    ) -> tuple[np.ndarray, np.ndarray]:
        device = next(self.model.parameters()).device
        snapshot = snapshot.to(device)
        read = [h[-self.max_history :] for h in full]
        tokens, mask = write_histories(read, snapshot.codes, self.layout)
        found, scores = beam_search(
            self.model,
            self.head,
            torch.from_numpy(tokens).to(device),
            torch.from_numpy(mask).to(device),
            snapshot.index,
            self.layout,
            k,
            widths,
            snapshot.allowed(rules, kept_out),
        )
        return found.cpu().numpy(), scores.cpu().numpy()

    def _widths(self, beam_width: int | Sequence[int] | None, k: int) -> list[int]:
        widths = widths_per_level(max(self.beam_width, k) if beam_width is None else beam_width, self.layout.levels)
        for width in widths:
            check_integer("beam_width", width, 1, WIDEST)
        if k > min(widths):
            raise SettingError(
                f"k must be at most the smallest beam_width, {min(widths)}, got {k}: a beam cannot promise more items "
                "than it is wide. Ask for fewer items or raise beam_width."
            )
        return widths

    def _batch_size(self, snapshot: Snapshot, widths: list[int]) -> int:
        """Users whose widest step fits into the memory: logits or candidates, 8 bytes each, a few at a time."""
        vocabulary = embedding_rows(self.model)
        beams = [1, *widths]
        candidates = max(width * fanout for width, fanout in zip(beams, snapshot.index.fanout, strict=False))
        return int(np.clip(STEP_MEMORY // (8 * max(max(widths) * min(vocabulary, 65_536), 4 * candidates)), 1, 256))
