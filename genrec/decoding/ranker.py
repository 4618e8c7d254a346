"""BeamRanker: model + catalogue + settings as one thing that ranks the catalogue for histories.

In: histories as catalogue rows. Out: the best catalogue rows with their scores. The facade, the Trainer's validation and
offline evaluation all go through here.

Legend: `U` histories, `B` queries searched together, `R` catalogue rows, `L` levels.
"""

from collections.abc import Sequence

import numpy as np
import torch
from tqdm.auto import tqdm
from transformers import PreTrainedModel

from genrec.data.interactions import Histories
from genrec.decoding.answers import Answer, as_arrays, check_sizes, under_caps
from genrec.decoding.beam import beam_search, widths_per_level
from genrec.decoding.fusion import Fusion
from genrec.decoding.snapshot import Query, Rules, Snapshot
from genrec.decoding.steps import Head, Steps, start
from genrec.decoding.trial import check_model, try_steps
from genrec.decoding.user_index import UserIndex
from genrec.errors import SettingError, check_integer
from genrec.models.item_encoder import ItemEncoder, read_items
from genrec.models.pretrained import embedding_rows
from genrec.models.tokens import TokenLayout, write_histories
from genrec.models.user_adapter import UserAdapter, outside

# Memory that one decoding step may take for logits and candidates, in bytes; batches are cut to fit.
STEP_MEMORY = 512 * 2**20
CPU_STEP_MEMORY = 16 * 2**20  # a CPU has nothing to gain from larger batches, and loses its cache
WIDEST = 4096
EXPLAINED = 64  # pairs of a history and an item read together


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
        fusion: Fusion | None = None,
        user_index: UserIndex | None = None,
        user_adapter: UserAdapter | None = None,
        item_encoder: ItemEncoder | None = None,
    ) -> None:
        """fusion: puts the candidates of a search in order, by more than the model says. user_index: of the layout's sizes.
        user_adapter: of the layout's soft tokens; the one in `model`, where that is being trained. item_encoder: the same of
        the layout's queries."""
        check_integer("beam_width", beam_width, 1, WIDEST)
        rows = embedding_rows(model)
        if rows < layout.vocabulary_size:
            raise SettingError(
                f"The codes need tokens up to {layout.vocabulary_size - 1}; the model has {rows} token rows. It belongs to "
                "another code table."
            )
        check_sizes(snapshot.index.sizes, layout.sizes)
        check_model(model, layout.longest(max_history))
        try_steps(model, layout, max_history)
        if layout.index != (user_index.sizes if user_index else ()) or (user_index and snapshot.vectors is None):
            raise SettingError(
                f"The model reads a user index of {list(layout.index)} codes, which is made of the items' vectors; got "
                f"{'none' if user_index is None else list(user_index.sizes)} and "
                f"{'no' if snapshot.vectors is None else 'the'} vectors. Give a ranker what the model was trained with."
            )
        if layout.soft != (user_adapter.tokens if user_adapter else 0) or (user_adapter and snapshot.vectors is None):
            raise SettingError(
                f"The model reads {layout.soft} soft tokens of a user adapter, which makes them of the items' vectors; got "
                f"{'no adapter' if user_adapter is None else f'one of {user_adapter.tokens}'} and "
                f"{'no' if snapshot.vectors is None else 'the'} vectors. Give a ranker what the model was trained with."
            )
        if layout.queries != (item_encoder.queries if item_encoder else 0) or (item_encoder and snapshot.vectors is None):
            raise SettingError(
                f"The model reads {layout.queries} soft tokens an item, which an item encoder makes of the items' vectors; got "
                f"{'no encoder' if item_encoder is None else f'one of {item_encoder.queries}'} and "
                f"{'no' if snapshot.vectors is None else 'the'} vectors. Give a ranker what the model was trained with."
            )
        self.model, self.layout, self.snapshot, self.head = model, layout, snapshot, Head(model)
        self.beam_width, self.max_history, self.name, self.fusion = beam_width, max_history, name, fusion
        self.user_index, self.user_adapter, self.item_encoder = user_index, user_adapter, item_encoder
        self.soft_maker = user_adapter or item_encoder

    def prompts(
        self,
        histories: Sequence[np.ndarray],
        snapshot: Snapshot,
        users: Sequence[str | None] | None = None,
        older: np.ndarray | None = None,
    ) -> tuple[np.ndarray, np.ndarray]:
        """What the model reads of whole histories: (token ids [B, T], mask [B, T]), as `write_histories` gives them. users:
        whose they are. older: what all of them had before, which only the user index is made of."""
        latest = [history[-self.max_history :] for history in histories]
        index = None
        if self.user_index is not None:
            assert snapshot.vectors is not None
            whole = histories if older is None else [np.concatenate([older, history]) for history in histories]
            index = self.user_index.codes(whole, snapshot.vectors)
        return write_histories(latest, snapshot.codes, self.layout, users, index)

    def outside(
        self, histories: Sequence[np.ndarray], snapshot: Snapshot, older: np.ndarray | None = None
    ) -> dict[str, np.ndarray]:
        """What the user adapter (`user_adapter.outside`) or the item encoder (`read_items`) reads of whole histories, by name;
        nothing where there is none. older: see `prompts`."""
        if self.soft_maker is None:
            return {}
        assert snapshot.vectors is not None
        if self.item_encoder is not None:
            return read_items([history[-self.max_history :] for history in histories], snapshot.vectors)
        most, past = self.max_history, np.zeros(0, np.int64) if older is None else older
        before = [np.concatenate([past, history[:-most]]) for history in histories]
        return outside(before, [history[-most:] for history in histories], snapshot.vectors)

    def soft_tokens(
        self, histories: Sequence[np.ndarray], snapshot: Snapshot, older: np.ndarray | None = None
    ) -> torch.Tensor | None:
        """What stands in the places of soft tokens: [B, S, H] of an adapter, [M, Q, H] of an item encoder. older: see
        `prompts`."""
        if self.soft_maker is None:
            return None
        device = next(self.model.parameters()).device
        told = self.outside(histories, snapshot, older)
        return self.soft_maker(**{name: torch.from_numpy(array).to(device) for name, array in told.items()})

    def begin(
        self,
        histories: Sequence[np.ndarray],
        snapshot: Snapshot,
        users: Sequence[str | None] | None = None,
        older: np.ndarray | None = None,
    ) -> Steps:
        """The histories read, as `prompts` takes them; ready to write codes."""
        device = next(self.model.parameters()).device
        tokens, mask = (torch.from_numpy(array).to(device) for array in self.prompts(histories, snapshot, users, older))
        return start(self.model, tokens, mask, self.soft_tokens(histories, snapshot, older))

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
        widths = self.widths(beam_width, k)
        queries = [
            Query(histories[user], k, widths, exclude_seen, rules or Rules(), histories.user_ids[user])
            for user in range(len(histories))
        ]
        return as_arrays(self.answer(queries, snapshot, progress), k)

    def answer(
        self, queries: Sequence[Query], snapshot: Snapshot | None = None, progress: bool = False
    ) -> list[tuple[np.ndarray, np.ndarray]]:
        """Each query's best min(k, allowed) rows and their scores. Queries of any widths and rules share batches; none changes
        another's answer.
        """
        snapshot = snapshot or self.snapshot
        answers: list = [None] * len(queries)
        if not len(queries):
            return answers
        # Histories of one length together: little padding.
        order = np.argsort([-min(len(query.history), self.max_history) for query in queries], kind="stable")
        was_training = self.model.training
        if was_training:  # walking through all modules takes a millisecond
            self.model.eval()
        widest = np.max([query.widths for query in queries], axis=0)
        batches = np.array_split(order, -(-len(order) // self._batch_size(snapshot, widest.tolist())))
        with tqdm(total=len(order), desc=f"Ranking with {self.name}", disable=not progress, leave=False) as bar:
            for batch in batches:
                for place, answer in zip(batch, self._answer_batch([queries[n] for n in batch], snapshot), strict=True):
                    answers[place] = answer
                bar.update(len(batch))
        if was_training:
            self.model.train()
        return answers

    @torch.inference_mode()
    def code_log_probs(
        self,
        histories: Sequence[np.ndarray],
        rows: np.ndarray,
        snapshot: Snapshot,
        user: str | None = None,
        older: np.ndarray | None = None,
    ) -> np.ndarray:
        """log P of each code of item `rows[b]` after history `histories[b]` (catalogue rows): float32 [B, L], which sum to
        scores. user: whose histories they all are; older: see `prompts`. The model writes the item itself, one code after the
        other.
        """
        device = next(self.model.parameters()).device
        layout, model = self.layout, self.model
        was_training = model.training
        model.eval()
        found = np.empty((len(rows), layout.levels), np.float32)
        for begin in range(0, len(rows), EXPLAINED):
            part = slice(begin, begin + EXPLAINED)
            some = histories[part]
            steps = self.begin(some, snapshot, [user] * len(some), older)
            wanted = torch.from_numpy(snapshot.codes[rows[part]].astype(np.int64)).to(device)
            hidden, first = steps.hidden, layout.base
            for level, size in enumerate(layout.sizes):
                code = wanted[:, level : level + 1]
                log_probs = self.head.log_probs(hidden, first, size)
                found[part, level] = log_probs.gather(-1, code.unsqueeze(-1)).view(-1).cpu().numpy()
                if level + 1 < layout.levels:
                    hidden = steps.advance(first + code, torch.zeros_like(code))
                first += size
        model.train(was_training)
        return found

    def _answer_batch(self, queries: list[Query], snapshot: Snapshot) -> list[tuple[np.ndarray, np.ndarray]]:
        def search(numbers: list[int], kept_out: list[np.ndarray]) -> list[Answer]:
            asked = [queries[n] for n in numbers]
            rows, scores = self._search(asked, kept_out, snapshot)
            # So many come back unless everything allowed did; without caps, k of them are the answer.
            narrowest = [min(query.widths) for query in asked]
            if self.fusion is not None:
                beyond = np.arange(rows.shape[1])[None] >= np.array(narrowest)[:, None]  # found for wider queries beside it
                rows = np.where(beyond, -1, rows)
                rows, scores = self.fusion.reorder([query.history for query in asked], rows, scores, snapshot.fitted)
            return [(rows[n, :width], scores[n, :width]) for n, width in enumerate(narrowest)]

        return under_caps(queries, search)

    def _search(self, queries: list[Query], kept_out: list[np.ndarray], snapshot: Snapshot) -> tuple[np.ndarray, np.ndarray]:
        """Rows and scores of the best candidates of each query, without caps: [B, most that any needs]."""
        device = next(self.model.parameters()).device
        snapshot = snapshot.to(device)
        histories = [query.history for query in queries]
        tokens, mask = self.prompts(histories, snapshot, [query.user for query in queries])
        found, scores = beam_search(
            self.model,
            self.head,
            torch.from_numpy(tokens).to(device),
            torch.from_numpy(mask).to(device),
            snapshot.index,
            self.layout,
            max(min(query.widths) if query.rules.caps or self.fusion else query.k for query in queries),
            [query.widths for query in queries],
            snapshot.allowed([query.rules.bitmap for query in queries], kept_out),
            soft=self.soft_tokens(histories, snapshot),
        )
        return found.cpu().numpy(), scores.cpu().numpy()

    def widths(self, beam_width: int | Sequence[int] | None, k: int) -> tuple[int, ...]:
        """The beam of each level for a request; see `checked_widths`."""
        return checked_widths(beam_width, k, self.beam_width, self.layout.levels)

    def _batch_size(self, snapshot: Snapshot, widths: list[int]) -> int:
        """Users whose widest step fits into the memory: logits or candidates, 8 bytes each, a few at a time."""
        vocabulary = embedding_rows(self.model)
        beams = [1, *widths]
        candidates = max(width * fanout for width, fanout in zip(beams, snapshot.index.fanout, strict=False))
        memory = CPU_STEP_MEMORY if self.model.device.type == "cpu" else STEP_MEMORY
        return int(np.clip(memory // (8 * max(max(widths) * min(vocabulary, 65_536), 4 * candidates)), 1, 256))


def checked_widths(beam_width: int | Sequence[int] | None, k: int, default: int, levels: int) -> tuple[int, ...]:
    """The beam of each level: `default` where None is asked for, or `k` where that is more.

    Raises `SettingError` for a beam that cannot be or cannot hold `k` items.
    """
    check_integer("k", k, 1, WIDEST)
    widths = widths_per_level(max(default, k) if beam_width is None else beam_width, levels)
    for width in widths:
        check_integer("beam_width", width, 1, WIDEST)
    if k > min(widths):
        raise SettingError(
            f"k must be at most the smallest beam_width, {min(widths)}, got {k}: a beam cannot promise more items "
            "than it is wide. Ask for fewer items or raise beam_width."
        )
    return widths
