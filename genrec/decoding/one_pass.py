"""OnePassRanker: a one-pass model + catalogue + settings as one thing that ranks the catalogue for histories.

In: histories as catalogue rows. Out: the best catalogue rows with their scores, exact. It takes the queries, rules and versions
of a catalogue that `BeamRanker` takes, and stands where it stands.

The score is log P(item | history): with the loss "codes" the sum of the codes' log-probabilities, else the log of the softmax
over all items that can be found, whatever the rules of the request leave out. With `one_pass.mixture`, the probability is the
weighed mean of those after the last few items: a user who wants several things is several vectors (the idea of kNN-Embed, arXiv
2205.06205, without its clusters and neighbours, and exact). With a fusion it is the log of the
item's share.

With `one_pass.rounds` an answer is found in several searches (`rounds.py`). Explanations, `log_probs` and `states` are those of
the first.

What an item looks like is made of its row alone and kept, so a new version of the catalogue costs the rows it added. An item
that no training event names has no id of its own; one that came back, or was changed, has the id that was learned for it.

Legend: `B` queries searched together, `R` catalogue rows, `S` slots per item, `L` codes per item, `V` codes of all levels,
`N` items of the fit, `n` some rows, `w` numbers of a vector that are looked at, `M` states of a mixture.
"""

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import torch
from torch import Tensor
from tqdm.auto import tqdm

from genrec.data.interactions import Histories, pad_histories
from genrec.decoding.answers import Answer, as_arrays, check_sizes, under_caps
from genrec.decoding.fusion import Fusion
from genrec.decoding.rounds import answer_in_rounds
from genrec.decoding.scoring import CELLS, Score, best_rows, dots, mixed, sums
from genrec.decoding.snapshot import Query, Rules, Snapshot
from genrec.errors import SettingError, check_integer
from genrec.models.one_pass.identifiers import Items
from genrec.models.one_pass.model import OnePassModel
from genrec.models.tokens import TokenLayout

BATCH = 128  # queries answered together
ROWS = 2**16  # catalogue rows whose vectors are made at once
MOST = 4096  # items that one query may ask for


class OnePassRanker:
    """Ranks by scoring every item. Use one per set of weights: what items look like is kept."""

    def __init__(
        self,
        model: OnePassModel,
        layout: TokenLayout,
        snapshot: Snapshot,
        train_counts: np.ndarray,
        name: str = "genrec",
        width: int | None = None,
        fusion: Fusion | None = None,
    ) -> None:
        """train_counts: int [N], training events of each item of the fit. width: how many numbers of a state and of an item are
        looked at, one of those that were trained to do alone (None: all). fusion: what is added to the model's scores."""
        shape = model.shape
        check_sizes(layout.sizes, shape.sizes)
        check_sizes(snapshot.index.sizes, shape.sizes)
        if len(train_counts) != shape.items:
            raise SettingError(f"The model was fitted on {shape.items} items, there are counts of {len(train_counts)}.")
        self.width = shape.width if width is None else width
        if self.width not in shape.widths:
            raise SettingError(
                f"width must be one that was trained, {' or '.join(map(str, shape.widths))}, got {width}. The recipe's "
                "one_pass.widths says which a fit trains."
            )
        self.model, self.layout, self.snapshot, self.name = model, layout, snapshot, name
        self.max_history, self.fusion = shape.history, fusion
        self.train_counts = train_counts
        self._ids = warm_ids(train_counts)
        self._by_codes = shape.config.loss == "codes"
        starts = torch.tensor([0, *np.cumsum(shape.sizes)[:-1].tolist()])
        self._offsets = starts.to(self.device)
        each = len(shape.sizes) if self._by_codes else shape.slots * self.width
        self._made = torch.zeros(0, each, dtype=torch.int32 if self._by_codes else torch.float32, device=self.device)

    @property
    def device(self) -> torch.device:
        return self.model.start.device

    @property
    def kept_bytes(self) -> int:
        """Memory of what is kept of the items that were scored so far."""
        return self._made.nbytes

    def rank(
        self,
        histories: Histories,
        k: int,
        exclude_seen: bool,
        rules: Rules | None = None,
        progress: bool = False,
        snapshot: Snapshot | None = None,
    ) -> Answer:
        """The best `k` allowed items per history; see `BeamRanker.rank`.

        Returns (rows int64 [U, k], -1 where fewer are left; scores float32 [U, k], -inf there).
        """
        check_integer("k", k, 1, MOST)
        queries = [Query(histories[user], k, (), exclude_seen, rules or Rules()) for user in range(len(histories))]
        return as_arrays(self.answer(queries, snapshot, progress), k)

    def answer(self, queries: Sequence[Query], snapshot: Snapshot | None = None, progress: bool = False) -> list[Answer]:
        """Each query's best min(k, allowed) rows and their scores. No query changes another's answer."""
        snapshot = (snapshot or self.snapshot).to(self.device)
        answers: list = [None] * len(queries)
        order = np.argsort([len(query.history[-self.max_history :]) for query in queries], kind="stable")
        was_training = self.model.training
        self.model.eval()
        with tqdm(total=len(order), desc=f"Ranking with {self.name}", disable=not progress, leave=False) as bar:
            for start in range(0, len(order), BATCH):
                batch = order[start : start + BATCH]
                for place, answer in zip(batch, self._answer_batch([queries[n] for n in batch], snapshot), strict=True):
                    answers[place] = answer
                bar.update(len(batch))
        self.model.train(was_training)
        return answers

    @torch.inference_mode()
    def _answer_batch(self, queries: list[Query], snapshot: Snapshot) -> list[Answer]:
        if self.model.shape.config.rounds > 1:
            read = self._read([query.history for query in queries], snapshot)
            slots_of = partial(self._slots, snapshot)
            return answer_in_rounds(
                self.model, queries, snapshot, read, self._items_of(snapshot), live_rows(snapshot), slots_of
            )
        rows_in_order = snapshot.index.rows_in_order.long()
        score_of, mixed_of = self._score([query.history for query in queries], snapshot)
        live = live_rows(snapshot)

        def search(numbers: list[int], kept_out: list[np.ndarray]) -> list[Answer]:
            # With caps, some of what is found does not fit: asking for more saves asking again.
            k = max(queries[n].k * (4 if queries[n].rules.caps else 1) for n in numbers)
            allowed = snapshot.allowed([queries[n].rules.bitmap for n in numbers], kept_out)
            cells, catalogue = CELLS // mixed_of, len(snapshot.codes)  # a mixture scores every item once per state
            counted = live if self._by_item else None
            rows, scores = best_rows(
                score_of(numbers, live), catalogue, rows_in_order, len(numbers), k, allowed, counted, cells
            )
            return list(zip(rows.cpu().numpy(), scores.cpu().numpy(), strict=True))

        return under_caps(queries, search)

    @torch.inference_mode()
    def code_log_probs(
        self,
        histories: Sequence[np.ndarray],
        rows: np.ndarray,
        snapshot: Snapshot,
        user: str | None = None,
        older: np.ndarray | None = None,
    ) -> np.ndarray:
        """log P of each code of item `rows[b]` after history `histories[b]`, given the codes before it: float32 [B, L].

        Where whole items are asked for, P of a code is that of all items which begin with the codes up to it, over that of all
        which begin with the codes before; the last is the item's own share.
        """
        snapshot = snapshot.to(self.device)
        wanted = torch.from_numpy(snapshot.codes[rows].astype(np.int64)).to(self.device)
        if not self._by_item:
            asked, shares = self._asked(histories, snapshot)
            places = (wanted + self._offsets).unsqueeze(1).expand(-1, shares.shape[1], -1)
            so_far = (asked.gather(2, places).cumsum(dim=2) + shares.unsqueeze(-1)).logsumexp(dim=1)
            return so_far.diff(dim=1, prepend=so_far.new_zeros(len(rows), 1)).clamp(max=0).cpu().numpy()
        score_of, _ = self._score(histories, snapshot)
        found = np.empty((len(rows), self.layout.levels), np.float32)
        live = live_rows(snapshot)
        codes = torch.tensor(snapshot.codes, device=self.device)
        for number, row in enumerate(rows.tolist()):
            below = live.clone()
            below[row] = True  # an item that was removed is weighed as if it were there
            scores = score_of([number], below)(0, len(codes))[0]
            totals = [scores[below].logsumexp(0)]
            for level in range(self.layout.levels - 1):
                below &= codes[:, level] == wanted[number, level]
                totals.append(scores[below].logsumexp(0))
            totals.append(scores[row])
            found[number] = torch.stack(totals).diff().clamp(max=0).cpu().numpy()
        return found

    @torch.inference_mode()
    def states(self, histories: Sequence[np.ndarray], snapshot: Snapshot) -> Tensor:
        """The model's state after each history, the numbers of it that are looked at: [B, S, w]."""
        return self._latest_states(histories, snapshot)[0][:, 0]

    def _latest_states(self, histories: Sequence[np.ndarray], snapshot: Snapshot) -> tuple[Tensor, Tensor]:
        """The states after the last item of each history, after the one before it, and so on: [B, M, S, w]; and the logarithm
        of what each weighs in the mixture: [B, M], -inf where a history has fewer items."""
        tokens, ends = self._read(histories, snapshot)
        states = self.model.states(tokens)
        weights = self.model.mixture[self.model.mixture > 0][: max(1, tokens.shape[1])]
        after = ends[:, None] - torch.arange(len(weights), device=self.device)  # so many items
        # The state before the first item knows nothing of the user: it speaks only where there is no other.
        shares = weights.log().masked_fill(after < ends[:, None].clamp(max=1), -torch.inf).log_softmax(dim=1)
        user = torch.arange(len(ends), device=self.device)[:, None]
        return states[user, after.clamp(min=0)][..., : self.width], shares

    def _read(self, histories: Sequence[np.ndarray], snapshot: Snapshot) -> tuple[Tensor, Tensor]:
        """Slots of the items that the model reads of each history, [B, T, S, d], and how many there are, int64 [B]."""
        read = [np.asarray(history[-self.max_history :], np.int64) for history in histories]
        known, places = np.unique(np.concatenate([[0], *read]).astype(np.int64), return_inverse=True)
        tokens = self._slots(snapshot, known)
        starts = np.cumsum([1, *map(len, read)])
        padded = pad_histories([places.reshape(-1)[a : a + len(h)] for a, h in zip(starts, read, strict=False)], 0)
        ends = torch.tensor([len(history) for history in read], device=self.device)
        return tokens[torch.from_numpy(padded).to(self.device)], ends

    @torch.inference_mode()
    def log_probs(self, histories: Sequence[np.ndarray]) -> np.ndarray:
        """What every row of the ranker's catalogue scores for each history, up to a constant per history: float32 [B, R]."""
        snapshot, was_training = self.snapshot.to(self.device), self.model.training
        self.model.eval()
        found = self._score(histories, snapshot)[0](range(len(histories)), live_rows(snapshot))(0, len(snapshot.codes))
        self.model.train(was_training)
        return found.cpu().numpy()

    def _asked(self, histories: Sequence[np.ndarray], snapshot: Snapshot) -> tuple[Tensor, Tensor]:
        """What the states of each history ask of an item: [B, M, S * w], or [B, M, V] log-probabilities of codes; and the
        logarithm of what each state weighs: [B, M]."""
        states, shares = self._latest_states(histories, snapshot)
        if self._by_codes:
            told = self.model.code_log_probs(self.model.code_queries(states.flatten(0, 1)))
            return told.unflatten(0, shares.shape), shares
        return self.model.weighed(self.model.dot_queries(states)), shares

    def _score(
        self, histories: Sequence[np.ndarray], snapshot: Snapshot
    ) -> tuple[Callable[[Sequence[int], Tensor], Score], int]:
        """What scores the catalogue for some of the histories, by number, given the rows that can be found, bool [R]; and how
        many states of a user speak. Of one state without a fusion, scores are made log-probabilities later."""
        (asked, shares), items = self._asked(histories, snapshot), self._items_of(snapshot)
        states, fusion = shares.shape[1], self.fusion
        votes = None if fusion is None else fusion.votes(histories, snapshot.fitted)

        def score(numbers: Sequence[int], counted: Tensor) -> Score:
            of = torch.tensor(list(numbers), device=self.device)
            own = (sums if self._by_codes else dots)(asked[of].flatten(0, 1), items)
            if states > 1:
                own = mixed(own, shares[of], len(snapshot.codes), None if self._by_codes else counted)
            if fusion is None or votes is None:
                return own
            return fusion.scores(own, votes[list(numbers)], counted, snapshot.fitted)

        return score, states

    @property
    def _by_item(self) -> bool:
        """Whether a score is the share of an item among all, and not the product of its codes' shares."""
        return not self._by_codes or self.fusion is not None

    def _items_of(self, snapshot: Snapshot) -> Tensor:
        """What every catalogue row is to a score: its vector [R, S * w], or its codes' places [R, L]. New rows are added."""
        made, rows = self._made, np.arange(len(self._made), len(snapshot.codes))
        if len(rows):
            pieces = [rows[start : start + ROWS] for start in range(0, len(rows), ROWS)]
            made = torch.cat([made, *(self._look(snapshot, piece) for piece in pieces)])
            self._made = made  # one assignment: another thread sees the old ones or the new ones
        return made

    def _slots(self, snapshot: Snapshot, rows: np.ndarray) -> Tensor:
        """Slots of catalogue rows [n]: [n, S, d]."""
        return self.model.tokens(items_of(snapshot, rows, self._ids).to(self.device))

    def _look(self, snapshot: Snapshot, rows: np.ndarray) -> Tensor:
        items = items_of(snapshot, rows, self._ids).to(self.device)
        if self._by_codes:
            return (items.codes + self._offsets).int()
        return self.model.keys(self.model.tokens(items)[..., : self.width]).flatten(1)


def warm_ids(train_counts: np.ndarray) -> np.ndarray:
    """Rows of the id table: int64 [N], `N` for an item without training events."""
    return np.where(train_counts > 0, np.arange(len(train_counts)), len(train_counts)).astype(np.int64)


def items_of(snapshot: Snapshot, rows: np.ndarray, ids: np.ndarray) -> Items:
    """What the model knows of catalogue rows [n]. ids: of the items of the fit, [N]; others have none of their own."""
    fitted = rows if snapshot.fitted is None else snapshot.fitted[rows]
    known = np.where((fitted >= 0) & (fitted < len(ids)), ids[np.clip(fitted, 0, len(ids) - 1)], len(ids))
    return Items.of(snapshot.codes[rows], known, None if snapshot.vectors is None else snapshot.vectors[rows])


def live_rows(snapshot: Snapshot) -> Tensor:
    """Whether each catalogue row can be found: bool [R]."""
    if snapshot.live is not None:
        return torch.from_numpy(snapshot.live).to(snapshot.index.device)
    live = torch.zeros(len(snapshot.codes), dtype=torch.bool, device=snapshot.index.device)
    live[snapshot.index.rows_in_order.long()] = True
    return live
