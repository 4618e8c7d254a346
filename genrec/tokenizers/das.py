"""DAS: codes of items and of users, quantised and aligned with what people do in one stage.

Two auto-encoders (autoencoder.py), one for item vectors and one for user vectors, are trained together with vectors of their
ids. An id's vector has two halves: its own, and one that popularity explains. Clicks teach both; the second half must tell the
popularity and the first must not go along with it. Six contrastive losses then pull together, with the first half only, what
clicks say belongs together. Source: DAS (arXiv 2508.10584); its paper has no code, so widths, temperature and the form of the
debiasing are ours. A user's vector is the mean of their items' vectors.

    tokenizer = DAS(DASConfig()).fit(vectors, histories)
    tokenizer.encode(vectors)                                   # codes of items, [N, L]
    tokenizer.encode_users(user_vectors(vectors, histories))    # codes of users, [U, L]: features for a ranker

Legend: `N` items, `U` users, `B` clicks of a batch, `D` vector width, `d` latent width, `L` levels, `K` codes per level.
"""

from dataclasses import dataclass
from typing import Any, Literal, Self

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor, nn
from torch.nn.functional import mse_loss

from genrec.data.interactions import Histories
from genrec.errors import DataError, SettingError
from genrec.networks import apply_perceptron, info_nce, train_on
from genrec.tokenizers.autoencoder import TEMPERATURE, Autoencoder, AutoencoderConfig, AutoencoderTokenizer, contrast
from genrec.tokenizers.base import checked_vectors
from genrec.tokenizers.residual import residual_codes

CLICKS = 512  # of a step
TERMS = ("user_to_item", "item_to_user", "same_user", "same_item", "users_together", "items_together")


@dataclass(frozen=True)
class DASConfig(AutoencoderConfig):
    """user_to_item: weight of the loss between quantised users and the ids of items they clicked. item_to_user: between
    quantised items and the ids of users who clicked them. same_user, same_item: between a quantised user or item and its own
    id. users_together: between quantised users who clicked the same item. items_together: between quantised items that follow
    each other in a history. debias: of keeping popularity out of the ids' own halves.
    """

    codebook_size: int = 512
    hidden: tuple[int, ...] = (256, 128)
    codebook: Literal["ema", "gradient"] = "gradient"
    steps: int = 2_000  # each sees four batches: both sides, alone and clicked
    batch_size: int = 512
    user_to_item: float = 0.03
    item_to_user: float = 0.03
    same_user: float = 0.03
    same_item: float = 0.03
    users_together: float = 0.03
    items_together: float = 0.03
    debias: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in (*TERMS, "debias"):
            if not getattr(self, name) >= 0:
                raise SettingError(f"{name} must be 0 or more, got {getattr(self, name)}.")


class DAS(AutoencoderTokenizer):
    """State: of the items as in `AutoencoderTokenizer`, and the same for users with `user_` before each name."""

    family = "das"
    config: DASConfig
    wants_histories = True

    def __init__(self, config: DASConfig | None = None) -> None:
        super().__init__()
        self.config = config or DASConfig()

    @classmethod
    def from_settings(cls, settings: dict[str, Any]) -> Self:
        return cls(DASConfig(**settings))

    def encode_users(self, vectors: np.ndarray) -> np.ndarray:
        """Codes of users from their vectors [U, D], also of users never seen in `fit`: int32 [U, L]."""
        self._require_fit()
        books = [self.state[f"user_codebook_{level}"].astype(np.float64) for level in range(self.config.levels)]
        return residual_codes(books, apply_perceptron(self.state, "user_encoder", checked_vectors(vectors, self.width)))

    def _train(self, vectors: np.ndarray, histories: Histories | None) -> dict[str, np.ndarray]:
        assert histories is not None  # what `wants_histories` promises
        histories = histories.select(np.flatnonzero(histories.lengths))
        if not len(histories):
            raise DataError("DAS learns from what users did, and the histories are empty.")
        network = DualAlignment(self.config, vectors, histories)
        train_on(
            clicks_of(histories), network, network.forward, steps=self.config.steps, batch_size=CLICKS,
            learning_rate=self.config.learning_rate, desc="DAS",
        )  # fmt: skip
        return network.items.codes.arrays() | network.users.codes.arrays("user_")


def user_vectors(vectors: np.ndarray, histories: Histories) -> np.ndarray:
    """The mean of the vectors [N, D] of each user's items: float32 [U, D]; zeros for a user without any."""
    events = np.ones(len(histories.items))
    met = sp.csr_matrix((events, histories.items, histories.indptr), shape=(len(histories), len(vectors)))
    return (met @ vectors / np.maximum(histories.lengths, 1)[:, None]).astype(np.float32)


def clicks_of(histories: Histories) -> np.ndarray:
    """One row per event: user, item, and the item next to it in the history (itself where there is none): int64 [E, 3]."""
    users = np.repeat(np.arange(len(histories)), histories.lengths)
    items = histories.items.astype(np.int64)
    beside = items.copy()
    beside[1:] = np.where(users[1:] == users[:-1], items[:-1], items[1:])  # the one before
    starts = histories.indptr[:-1][histories.lengths > 1]
    beside[starts] = items[starts + 1]  # the first has one after it
    return np.column_stack([users, items, beside])


@dataclass(frozen=True)
class View:
    """One side of a batch of clicks. rows: who it is; others: who belongs to them, both [B]. quantised, of_others: what their
    codes stand for; own: the half of their id's vector that popularity does not explain, all [B, d].
    """

    rows: Tensor
    others: Tensor
    quantised: Tensor
    of_others: Tensor
    own: Tensor


def alignment(users: View, items: View) -> dict[str, Tensor]:
    """The six losses by name, unweighted. With the sides exchanged they are the same ones, with their names exchanged."""
    same_user, same_item = users.rows[:, None] == users.rows[None], items.rows[:, None] == items.rows[None]
    return {
        "user_to_item": info_nce(users.quantised, items.own, TEMPERATURE, same_user | same_item),
        "item_to_user": info_nce(items.quantised, users.own, TEMPERATURE, same_user | same_item),
        "same_user": info_nce(users.quantised, users.own, TEMPERATURE, same_user),
        "same_item": info_nce(items.quantised, items.own, TEMPERATURE, same_item),
        "users_together": _together(users),
        "items_together": _together(items),
    }


def _together(view: View) -> Tensor:
    """Of those who have somebody beside them that is not themselves."""
    some = view.rows != view.others
    if not some.any():
        return view.quantised.sum() * 0
    return contrast(view.quantised[some], view.of_others[some], torch.stack([view.rows, view.others], dim=1)[some])


class Ids(nn.Module):
    """Vectors of ids in two halves, each [n, d]: `own`, and `biased`, which popularity explains. popularity: [n]."""

    def __init__(self, popularity: np.ndarray, width: int) -> None:
        super().__init__()
        spread = popularity.std()
        self.register_buffer(
            "popularity", torch.from_numpy((popularity - popularity.mean()) / (spread if spread else 1)).float()
        )
        # A half of its own each: layers on one shared vector could never keep out of one what the other one needs.
        self.own, self.biased = nn.Embedding(len(popularity), width), nn.Embedding(len(popularity), width)
        self.probe = nn.Linear(width, 1)

    def forward(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        return self.own(rows), self.biased(rows)

    def disentangled(self, rows: Tensor) -> Tensor:
        """How badly the biased halves tell the popularity, and how far the own halves go along with it and with them."""
        own, biased = self(rows)
        popularity = self.get_buffer("popularity")[rows].unsqueeze(1)
        return mse_loss(self.probe(biased), popularity) + _correlation(own, popularity) + _correlation(own, biased)


def _correlation(a: Tensor, b: Tensor) -> Tensor:
    """Mean squared correlation of the columns of a and b [B, .]."""
    a, b = ((x - x.mean(dim=0)) / (x.std(dim=0, correction=0) + 1e-6) for x in (a, b))
    return ((a.T @ b / len(a)) ** 2).mean()


class Side(nn.Module):
    """Users or items: their vectors [n, D], the codes of these, and their ids."""

    def __init__(self, config: DASConfig, vectors: np.ndarray, popularity: np.ndarray, whose: str) -> None:
        super().__init__()
        self.register_buffer("vectors", torch.from_numpy(vectors))
        self.codes = Autoencoder(config, vectors, whose)
        self.ids = Ids(popularity, config.latent)

    def view(self, rows: Tensor, others: Tensor, own: Tensor) -> View:
        vectors = self.get_buffer("vectors")
        quantised, of_others = self.codes.quantised(vectors[torch.cat([rows, others])]).chunk(2)
        return View(rows, others, quantised, of_others, own)

    def alone(self, config: DASConfig) -> Tensor:
        """The losses that need no clicks, on rows drawn alike: what nobody has met is learned too."""
        vectors = self.get_buffer("vectors")
        rows = torch.randint(len(vectors), (min(config.batch_size, len(vectors)),), device=vectors.device)
        return self.codes.loss(vectors[rows]) + config.debias * self.ids.disentangled(rows)


class DualAlignment(nn.Module):
    """The whole of DAS: called with clicks [B, 3] as `clicks_of` gives them, it returns the loss."""

    def __init__(self, config: DASConfig, vectors: np.ndarray, histories: Histories) -> None:
        super().__init__()
        self.config = config
        met = np.log1p(np.bincount(histories.items, minlength=len(vectors)))
        taste = user_vectors(met[:, None], histories)[:, 0].astype(
            np.float64
        )  # a user follows the crowd as far as their items do
        self.items = Side(config, vectors, met, "items")
        self.users = Side(config, user_vectors(vectors, histories), taste, "users")
        by_item = np.argsort(histories.items, kind="stable")
        who = np.repeat(np.arange(len(histories)), histories.lengths)[by_item]
        self.register_buffer("who", torch.from_numpy(who))  # users by the item they clicked
        counts = np.bincount(histories.items, minlength=len(vectors))
        self.register_buffer("starts", torch.from_numpy(np.cumsum(counts) - counts))
        self.register_buffer("counts", torch.from_numpy(counts))

    def forward(self, clicks: Tensor) -> Tensor:
        config = self.config
        users, items, _ = clicks.unbind(1)
        same = (users[:, None] == users[None]) | (items[:, None] == items[None])
        clicked = info_nce(torch.hstack(self.users.ids(users)), torch.hstack(self.items.ids(items)), TEMPERATURE, same)
        aligned = sum(getattr(config, name) * loss for name, loss in self.aligned(clicks).items())
        return self.items.alone(config) + self.users.alone(config) + clicked + aligned

    def aligned(self, clicks: Tensor) -> dict[str, Tensor]:
        """The six losses of clicks [B, 3], with the ids' own halves."""
        users, items, beside = clicks.unbind(1)
        own_user, own_item = self.users.ids(users)[0], self.items.ids(items)[0]
        return alignment(self.users.view(users, self.another(items), own_user), self.items.view(items, beside, own_item))

    def another(self, items: Tensor) -> Tensor:
        """For each of these items [B] one of the users who clicked it, drawn at random."""
        counts = self.get_buffer("counts")[items]
        drawn = (torch.rand(len(items), device=items.device) * counts).long().clamp(max=counts - 1)
        return self.get_buffer("who")[self.get_buffer("starts")[items] + drawn]
