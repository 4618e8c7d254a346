"""DAS's own promises, beside the contract: the acceptance checks of its description."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from contract import clustered_vectors
from torch.nn.functional import cosine_similarity

from genrec.data.interactions import Histories
from genrec.errors import DataError, SettingError
from genrec.networks import train_on
from genrec.tokenizers.das import DAS, TERMS, DASConfig, DualAlignment, View, alignment, clicks_of, user_vectors
from genrec.tokenizers.rq_vae import RQVAE, RQVAEConfig

SMALL = {"levels": 2, "codebook_size": 16, "hidden": (32,), "latent": 8}
ITEMS = 300


def shop(seed: int = 0) -> tuple[np.ndarray, Histories, np.ndarray]:
    """Vectors, histories, and each item's taste, which is a small part of its vector and all that users look at, beside
    popularity."""
    random = np.random.default_rng(seed)
    vectors = clustered_vectors(items=ITEMS)
    vectors[:, 0] = random.normal(size=ITEMS)
    taste = vectors[:, 0] > 0
    weight = random.exponential(size=ITEMS) ** 2
    lists = []
    for user in range(400):
        chance = weight * (taste == bool(user % 2))
        lists.append(random.choice(ITEMS, 8, p=chance / chance.sum()))
    return vectors, Histories.from_lists(lists), taste


def network(**settings: float) -> DualAlignment:
    torch.manual_seed(0)
    vectors, histories, _ = shop()
    return DualAlignment(DASConfig(**SMALL, **settings), vectors, histories)


@pytest.fixture(scope="module")
def trained() -> DualAlignment:
    made = network()
    train_on(clicks_of(shop()[1]), made, made.forward, steps=600, batch_size=256, learning_rate=1e-2, desc="")
    return made


def views(users: int = 2) -> tuple[View, View]:
    """Users and the items they clicked, one each, with free vectors."""
    torch.manual_seed(1)
    rows = torch.arange(users)

    def free() -> torch.Tensor:
        return torch.randn(users, 4, requires_grad=True)

    return View(rows, rows.flip(0), free(), free(), free()), View(rows, rows.flip(0), free(), free(), free())


def test_one_backward_pass_reaches_encoders_codebooks_and_ids() -> None:
    made = network()
    made(torch.from_numpy(clicks_of(shop()[1])[:256])).backward()
    for side in (made.items, made.users):
        wanted = [*side.codes.encoder.parameters(), side.codes.quantiser.codebooks, side.ids.own.weight]
        books = [layer._codebook.embed for layer in side.codes.quantiser.layers]
        for tensor in [*wanted[:-2], *books, wanted[-1]]:
            assert tensor.grad is not None
            assert tensor.grad.abs().sum() > 0


@pytest.mark.parametrize(
    ("term", "a", "b"),
    [
        ("user_to_item", ("users", "quantised"), ("items", "own")),
        ("item_to_user", ("items", "quantised"), ("users", "own")),
        ("same_user", ("users", "quantised"), ("users", "own")),
        ("same_item", ("items", "quantised"), ("items", "own")),
        ("users_together", ("users", "quantised"), ("users", "of_others")),
        ("items_together", ("items", "quantised"), ("items", "of_others")),
    ],
)
def test_each_term_pulls_its_own_pairs_together_and_touches_nothing_else(
    term: str, a: tuple[str, str], b: tuple[str, str]
) -> None:
    users, items = views(4)
    if term.endswith("together"):  # pairs of four different ones
        users, items = (replace(view, others=view.rows + 4) for view in (users, items))
    sides = {"users": users, "items": items}
    alignment(users, items)[term].backward()
    pulled = {a, b}
    for side, view in sides.items():
        for name in ("quantised", "of_others", "own"):
            gradient = getattr(view, name).grad
            assert ((side, name) in pulled) == (gradient is not None and bool(gradient.abs().sum() > 0))
    first, second = (getattr(sides[side], name) for side, name in (a, b))
    nearer = cosine_similarity(first - 0.1 * first.grad, second - 0.1 * second.grad).mean()
    assert nearer > cosine_similarity(first, second).mean()


def test_exchanging_users_and_items_exchanges_the_losses_exactly() -> None:
    users, items = views(6)
    there, back = alignment(users, items), alignment(items, users)
    mirror = {"user": "item", "item": "user", "users": "items", "items": "users"}
    for name in TERMS:
        mirrored = "_".join(mirror.get(word, word) for word in name.split("_"))
        assert there[name].item() == back[mirrored].item()


def test_popularity_goes_into_one_half_and_stays_out_of_the_other(trained: DualAlignment) -> None:
    ids = trained.items.ids
    popularity = ids.get_buffer("popularity").numpy()
    with torch.no_grad():
        own, biased = ids(torch.arange(ITEMS))

    def told(half: torch.Tensor) -> float:
        """Correlation of popularity with what a linear probe, fitted on one part of the items, says of the other."""
        x = np.c_[half.numpy(), np.ones(ITEMS)]
        order = np.random.default_rng(0).permutation(ITEMS)
        fit, ask = order[:200], order[200:]
        weights = np.linalg.lstsq(x[fit], popularity[fit], rcond=None)[0]
        return float(np.corrcoef(x[ask] @ weights, popularity[ask])[0, 1])

    assert told(biased) > 0.9
    assert abs(told(own)) < 0.3


def test_the_popular_halves_have_no_part_in_the_alignment(trained: DualAlignment) -> None:
    clicks = torch.from_numpy(clicks_of(shop()[1])[:64])
    trained.zero_grad()
    sum(trained.aligned(clicks).values()).backward()
    for side in (trained.items, trained.users):
        assert side.ids.biased.weight.grad is None
        assert side.ids.own.weight.grad is not None


def test_the_other_user_of_an_item_is_any_who_clicked_it() -> None:
    histories = shop()[1]
    made, item = network(), int(histories.items[0])
    there = {user for user in range(len(histories)) if item in histories[user]}
    assert len(there) > 3
    assert set(made.another(torch.full((2000,), item)).tolist()) == there


def test_codes_say_more_of_what_people_do_than_those_of_the_vectors_alone_and_are_all_in_use() -> None:
    vectors, histories, taste = shop()
    spread = ((vectors - vectors.mean(0)) ** 2).sum()
    alike, lost = {}, {}
    settings = SMALL | {"codebook_size": 32, "steps": 1000, "learning_rate": 3e-3, "codebook": "gradient"}
    plain = RQVAE(RQVAEConfig(**settings)).fit(vectors)
    aligned = DAS(DASConfig(**settings, **dict.fromkeys(TERMS, 0.03))).fit(vectors, histories)
    for name, made in {"plain": plain, "aligned": aligned}.items():
        codes = made.encode(vectors)
        same = (codes[:, None, 0] == codes[None, :, 0]) & ~np.eye(ITEMS, dtype=bool)
        together = taste[:, None] == taste[None]
        alike[name] = same[together].mean() / same[~together].mean()
        lost[name] = ((vectors - made.decode(codes)) ** 2).sum() / spread
        assert all(len(np.unique(codes[:, level])) > 0.8 * 32 for level in range(2))
    assert alike["aligned"] > 1.15 * alike["plain"]
    assert lost["aligned"] <= 1.2 * lost["plain"]
    users = aligned.encode_users(user_vectors(vectors, histories))
    assert users.shape == (400, 2)
    assert len(np.unique(users[:, 0])) > 0.8 * 32
    fans = [set(users[side::2, 0].tolist()) for side in (0, 1)]
    assert len(fans[0] & fans[1]) < 16, "users of different taste have different codes"


def test_clicks_know_their_neighbour() -> None:
    found = clicks_of(Histories.from_lists([[5, 6, 7], [8], [], [9, 5]]))
    assert found.tolist() == [[0, 5, 6], [0, 6, 5], [0, 7, 6], [1, 8, 8], [3, 9, 5], [3, 5, 9]]


def test_a_user_is_the_mean_of_their_items() -> None:
    found = user_vectors(np.array([[0.0, 2], [4, 4]]), Histories.from_lists([[0, 1], [], [1]]))
    assert found.tolist() == [[2, 3], [0, 0], [4, 4]]


def test_what_cannot_be_is_refused() -> None:
    vectors, histories, _ = shop()
    with pytest.raises(SettingError, match="same_user must be 0 or more"):
        DASConfig(same_user=-1)
    with pytest.raises(SettingError, match="learns from histories"):
        DAS(DASConfig(**SMALL)).fit(vectors)
    with pytest.raises(DataError, match="histories are empty"):
        DAS(DASConfig(**SMALL)).fit(vectors, Histories.from_lists([]))
    with pytest.raises(SettingError, match="at most the number of users, 3"):
        DAS(DASConfig(**SMALL)).fit(vectors, histories.select(np.arange(3)))
    with pytest.raises(SettingError, match="must be fitted first"):
        DAS().encode_users(vectors)
