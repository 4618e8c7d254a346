"""Promises of the synthetic shop: the same seed gives the same shop, and what people bought says what they buy next."""

from pathlib import Path

import numpy as np
import pytest

from genrec.data import (
    Catalogue,
    Histories,
    Interactions,
    leave_one_out,
    load_catalogue,
    load_interactions,
    make_shop,
    table_hash,
    validate,
    write_shop,
)
from genrec.errors import SettingError


@pytest.fixture(scope="module")
def full() -> tuple[Catalogue, Interactions, Histories]:
    catalogue, interactions = make_shop()
    return catalogue, interactions, interactions.histories(catalogue)


def test_the_same_seed_gives_the_same_tables_with_every_version_of_numpy() -> None:
    # Written down, not computed twice: a change here changes everybody's demo and must be on purpose.
    catalogue, interactions = make_shop(users=50, items=70, seed=7)
    assert (table_hash(catalogue.table)[:16], table_hash(interactions.table)[:16]) == ("d6526779cdd43b71", "66e286da5dc17bb1")
    other = make_shop(users=50, items=70, seed=8)
    assert table_hash(other[1].table) != table_hash(interactions.table)


def test_the_shop_has_the_promised_size_and_nobody_buys_twice(full) -> None:
    catalogue, interactions, histories = full
    assert (len(catalogue), len(histories)) == (600, 2000)
    assert 9 <= histories.lengths.mean() <= 12
    assert histories.lengths.min() >= 4
    assert histories.repeat_share() == 0.0
    counts = np.sort(np.bincount(histories.items, minlength=600))
    assert counts[0] > 0
    assert 2 < counts[-1] / counts.mean() < 10  # mildly skewed
    assert validate(catalogue.table, interactions.table).problems == []


def test_titles_are_unique_and_say_brand_line_and_product(full) -> None:
    rows = full[0].table.to_pylist()
    assert len({row["title"] for row in rows}) == len(rows)
    assert all(row["title"].startswith(f"{row['brand']} {row['line']} {row['subcategory']}") for row in rows)
    assert all(3 < row["price"] < 300 and row["description"] for row in rows)


def test_time_runs_forward_inside_every_user(full) -> None:
    _, interactions, histories = full
    steps = np.diff(histories.times)
    inside = np.ones(len(steps), bool)
    inside[histories.indptr[1:-1] - 1] = False
    assert (steps[inside] > 0).all()
    assert ((steps[inside] < 3600) | (steps[inside] >= 86_400)).all()  # sessions
    assert (np.diff(interactions.table.column("timestamp").to_numpy()) >= 0).all()


def ndcg_at_10(scores: np.ndarray, histories: Histories, targets: np.ndarray) -> float:
    """scores: [U, N]; seen items are masked."""
    users = np.repeat(np.arange(len(histories)), histories.lengths)
    scores = scores.astype(float)
    scores[users, histories.items] = -np.inf
    ranks = (scores > scores[np.arange(len(targets)), targets][:, None]).sum(axis=1)
    return float(np.where(ranks < 10, 1 / np.log2(ranks + 2), 0).mean())


def test_what_followed_the_last_item_beats_popularity_by_far(full) -> None:
    catalogue, _, histories = full
    split = leave_one_out(histories)
    n = len(catalogue)
    popularity = np.bincount(split.train.items, minlength=n).astype(float)
    inside = np.ones(len(split.train.items) - 1, bool)
    inside[split.train.indptr[1:-1] - 1] = False
    follows = np.zeros((n, n))
    np.add.at(follows, (split.train.items[:-1][inside], split.train.items[1:][inside]), 1)
    last = split.test.histories.items[split.test.histories.indptr[1:] - 1]
    base = ndcg_at_10(np.tile(popularity, (len(last), 1)), split.test.histories, split.test.items)
    chain = ndcg_at_10(follows[last] + 1e-6 * popularity, split.test.histories, split.test.items)
    assert chain > 3 * base
    assert 0.1 < chain < 0.8  # neither noise nor a lookup table


def test_items_of_one_brand_line_are_bought_together_so_text_carries_signal(full) -> None:
    catalogue, _, histories = full
    table = catalogue.table.to_pandas()
    line = (table["brand"] + table["line"] + table["category"]).factorize()[0]
    brand, category = table["brand"].factorize()[0], table["category"].factorize()[0]
    inside = np.ones(len(histories.items) - 1, bool)
    inside[histories.indptr[1:-1] - 1] = False
    one, two = histories.items[:-1][inside], histories.items[1:][inside]
    mixed = np.random.default_rng(0).permutation(two)
    for group, lift in ((line, 20), (brand, 5), (category, 3)):
        assert (group[one] == group[two]).mean() > lift * (group[one] == group[mixed]).mean()


@pytest.mark.parametrize("items", [10, 11, 61, 7300])
def test_shops_of_any_size_are_sound(items: int) -> None:
    catalogue, interactions = make_shop(users=20, items=items, seed=1)
    histories = interactions.histories(catalogue)
    assert len(set(catalogue.table.column("title").to_pylist())) == items
    assert histories.repeat_share() == 0.0
    assert histories.lengths.min() >= 4
    assert histories.lengths.max() <= max(5, items // 2)


def test_impossible_shops_are_refused() -> None:
    with pytest.raises(SettingError, match=r"items must be an integer of at least 10, got 9"):
        make_shop(items=9)
    with pytest.raises(SettingError, match=r"users must be an integer of at least 1, got 0"):
        make_shop(users=0)


def test_the_written_csv_files_read_back_as_the_same_shop(tmp_path: Path) -> None:
    paths = write_shop(tmp_path / "new" / "shop", users=40, items=60, seed=3)
    assert [path.name for path in paths] == ["items.csv", "interactions.csv"]
    catalogue, interactions = make_shop(users=40, items=60, seed=3)
    assert table_hash(load_catalogue(paths[0]).table) == table_hash(catalogue.table)
    assert table_hash(load_interactions(paths[1]).table) == table_hash(interactions.table)
