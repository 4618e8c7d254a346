"""Where item vectors come from besides plain text: the user's own, aligned ones, sequence models, graphs."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from scipy.stats import spearmanr

from genrec.data.catalogue import Catalogue
from genrec.data.interactions import Histories
from genrec.embedding.aligned import aligned, learn_alignment
from genrec.embedding.fused import EmbeddingConfig, ItemEmbedder
from genrec.embedding.graph import graph_vectors
from genrec.embedding.own import read_item_vectors
from genrec.embedding.sequence import sequence_vectors
from genrec.errors import DataError, SettingError

ITEMS = 40


def tastes(users: int = 300, seed: int = 0) -> Histories:
    """Everybody likes the even or the odd items."""
    random = np.random.default_rng(seed)
    return Histories.from_lists([2 * random.integers(0, ITEMS // 2 - 2, 8) + user % 2 for user in range(users)])


def words(seed: int = 1) -> np.ndarray:
    """Text vectors that know nothing of even and odd: the first half of the items reads alike, and so does the second."""
    random = np.random.default_rng(seed)
    halves = random.normal(size=(2, 12))[(np.arange(ITEMS) >= ITEMS // 2).astype(int)]
    vectors = halves + 0.5 * random.normal(size=(ITEMS, 12))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def separation(vectors: np.ndarray, labels: np.ndarray) -> float:
    """Mean cosine of items of one label minus that of items of two."""
    cosine = vectors @ vectors.T
    same = labels[:, None] == labels[None]
    np.fill_diagonal(same, False)
    return float(cosine[same].mean() - cosine[labels[:, None] != labels[None]].mean())


PARITY = np.arange(ITEMS) % 2
MET = np.arange(ITEMS) < ITEMS - 4  # nobody meets the last four


def test_a_sequence_model_learns_who_goes_with_whom() -> None:
    vectors = sequence_vectors(tastes(), ITEMS, 16, 0)
    assert separation(vectors[MET], PARITY[MET]) > 0.3
    assert not vectors[~MET].any(), "nothing is known of these"
    np.testing.assert_array_equal(vectors, sequence_vectors(tastes(), ITEMS, 16, 0))


def alike(a: np.ndarray, b: np.ndarray) -> float:
    """Spearman's correlation of the similarities of all pairs of items."""
    upper = np.triu_indices(int(MET.sum()), 1)
    return float(spearmanr((a[MET] @ a[MET].T)[upper], (b[MET] @ b[MET].T)[upper]).statistic)


def nearness_of_readalikes(text: np.ndarray, vectors: np.ndarray) -> float:
    """Mean reciprocal rank, among the neighbours by `vectors`, of the item that reads most alike."""
    reads, near = ((v[MET] @ v[MET].T - 9 * np.eye(int(MET.sum()))) for v in (text, vectors))
    own = near[np.arange(len(near)), reads.argmax(axis=1)]
    return float((1 / ((near > own[:, None]).sum(axis=1) + 1)).mean())


def test_alignment_writes_the_text_into_collaborative_vectors_and_neither_drowns_the_other() -> None:
    text, train = words(), tastes()
    plain, joined = sequence_vectors(train, ITEMS, 16, 0), sequence_vectors(train, ITEMS, 16, 0, text, 1.0)
    halves = (np.arange(ITEMS) >= ITEMS // 2).astype(int)
    assert separation(joined[MET], halves[MET]) > separation(plain[MET], halves[MET]) + 0.05
    assert nearness_of_readalikes(text, joined) > nearness_of_readalikes(text, plain)
    strong = sequence_vectors(train, ITEMS, 16, 0, text, 8.0)
    assert min(alike(strong, text), alike(strong, plain)) > 0.3
    assert alike(np.hstack([10 * text, plain]), plain) < 0.1, "long text vectors beside short ones drown them"
    np.testing.assert_array_equal(plain, sequence_vectors(train, ITEMS, 16, 0, text, 0.0))


def test_a_graph_brings_items_of_the_same_users_together_even_without_content() -> None:
    content = words()
    content[:6] = 0
    vectors = graph_vectors(tastes(), content, 16, 0)
    assert separation(vectors[MET], PARITY[MET]) > 0.3
    mute = np.arange(6)
    assert separation(vectors[mute], PARITY[mute]) > 0.3
    assert np.isfinite(vectors).all()
    assert np.linalg.norm(vectors[~MET], axis=1).min() > 0.9, "an item without edges keeps its own part"


def test_aligned_content_brings_followers_together_and_works_for_new_items() -> None:
    random = np.random.default_rng(3)
    # Images show even and odd; the text does not.
    images = (np.where(PARITY[:, None], 1.0, -1.0) * random.random((1, 5)) + random.normal(size=(ITEMS, 5))).astype(np.float32)
    kinds = [words(), images]
    arrays = learn_alignment(kinds, tastes().following_pairs(), 16, 0)
    vectors = aligned(arrays, kinds)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    before = separation(images / np.linalg.norm(images, axis=1, keepdims=True), PARITY)
    assert separation(vectors[MET], PARITY[MET]) > before + 0.05
    np.testing.assert_array_equal(aligned(arrays, [kind[:1] for kind in kinds])[0], vectors[0])
    with pytest.raises(SettingError, match="there are none"):
        learn_alignment(kinds, np.zeros((0, 2), np.int64), 16, 0)


def catalogue(items: int = ITEMS) -> Catalogue:
    titles = [f"{'red' if i % 2 else 'blue'} {'shoe' if i < ITEMS // 2 else 'shirt'} number {i}" for i in range(items)]
    return Catalogue.from_table(pa.table({"item_id": [f"i{i}" for i in range(items)], "title": titles}))


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Vectors of 60 items, in another order than the catalogue's."""
    vectors = np.random.default_rng(5).normal(size=(60, 6)).astype(np.float32)
    order = np.random.default_rng(6).permutation(60)
    table = pa.table({"item_id": [f"i{i}" for i in order], "image": pa.array(vectors[order].tolist(), pa.list_(pa.float32()))})
    pq.write_table(table, tmp_path / "item_vectors.parquet")
    return tmp_path / "item_vectors.parquet"


@pytest.mark.parametrize("fusion", ["concatenate", "aligned"])
@pytest.mark.parametrize("collaborative", ["cooccurrence", "sequence", "graph"])
def test_every_source_gives_vectors_for_the_catalogue_and_for_items_to_come(
    images: Path, tmp_path: Path, collaborative: str, fusion: str
) -> None:
    config = EmbeddingConfig(
        "tfidf-svd",
        item_vectors=str(images),
        fusion=fusion,
        **({"aligned_width": 8} if fusion == "aligned" else {}),
        collaborative=collaborative,
        collaborative_width=4,
    )  # type: ignore[arg-type]
    embedder = ItemEmbedder(config)
    vectors = embedder.fit(catalogue(), tastes())
    new = Catalogue.from_table(catalogue(60).table.slice(ITEMS))
    later = embedder.encode(new, images)
    assert later.shape == (20, vectors.shape[1])
    embedder.save(tmp_path / "saved")
    loaded = ItemEmbedder.load(tmp_path / "saved")
    np.testing.assert_array_equal(loaded.encode(new, images), later)
    with pytest.raises(SettingError, match="vectors of their own"):
        loaded.encode(new)


def test_vectors_that_do_not_fit_are_refused_by_name(images: Path, tmp_path: Path) -> None:
    ids = np.array(["i1", "i0"], object)
    vectors = read_item_vectors(images, ids)
    np.testing.assert_array_equal(vectors[::-1], read_item_vectors(images, ids[::-1]))
    with pytest.raises(DataError, match="no vector for 1 items, for example 'who'"):
        read_item_vectors(images, np.array(["i1", "who"], object))
    with pytest.raises(DataError, match="cannot be read as Parquet"):
        read_item_vectors(tmp_path / "nowhere.parquet", ids)
    bad = {
        "must have the columns item_id": pa.table({"id": ["i0", "i1"], "v": [[1.0], [2.0]]}),
        "must hold lists of numbers": pa.table({"item_id": ["i0", "i1"], "v": [1.0, 2.0]}),
        "must have the same length": pa.table({"item_id": ["i0", "i1"], "v": [[1.0], [2.0, 3.0]]}),
        "holds NaN": pa.table({"item_id": ["i0", "i1"], "v": [[1.0], [float("nan")]]}),
    }
    for message, table in bad.items():
        pq.write_table(table, tmp_path / "bad.parquet")
        with pytest.raises(DataError, match=message):
            read_item_vectors(tmp_path / "bad.parquet", ids)
    with pytest.raises(DataError, match="of 7 numbers"):
        read_item_vectors(images, ids, width=7)
