"""Code sequences as features: N-grams and SentencePiece pieces."""

from pathlib import Path

import numpy as np
import pytest

from genrec.errors import DataError, SettingError
from genrec.tokenizers.pieces import CodePieces, ngram_rows, ngrams

SIZES = (4, 8, 8)


def popular_codes(items: int = 400) -> tuple[np.ndarray, np.ndarray]:
    """Codes [N, 3] and impressions: a few items are shown most of the time."""
    random = np.random.default_rng(0)
    codes = np.stack([random.integers(0, size, items) for size in SIZES], axis=1)
    return codes, (1000 / np.arange(1, items + 1) ** 1.2).astype(np.int64) + 1


def test_items_share_exactly_the_rows_of_the_codes_they_share() -> None:
    codes = np.array([[1, 2, 3], [1, 2, 5], [0, 2, 3]])
    shared = [len(set(rows[0]) & set(rows[1])) for rows in (ngrams(codes, SIZES, n).tolist() for n in (1, 2, 3))]
    assert shared == [2, 1, 0], "two unigrams, the first bigram, no trigram"
    swapped = ngrams(np.array([[1, 2, 2]]), SIZES, 1)[0]
    assert len(set(swapped.tolist())) == 3, "code 2 of one level is not code 2 of another"


def test_every_run_has_its_own_row_and_hashed_rows_stay_within_the_table() -> None:
    every = np.stack(np.meshgrid(*map(np.arange, SIZES), indexing="ij"), axis=-1).reshape(-1, 3)
    for n in (1, 2, 3):
        rows = ngrams(every, SIZES, n)
        assert len(np.unique(rows)) == ngram_rows(SIZES, n) == rows.max() + 1
        hashed = ngrams(every, SIZES, n, rows=16)
        assert hashed.max() < 16
        assert len(np.unique(hashed)) > 8


def test_pieces_spell_every_item_with_the_vocabulary_asked_for() -> None:
    codes, impressions = popular_codes()
    pieces = CodePieces(80).fit(codes, SIZES, impressions)
    asked = np.concatenate([codes, [[3, 7, 7], [0, 0, 0]]])
    indptr, rows = pieces.encode(asked)
    for item, start, end in zip(asked, indptr, indptr[1:], strict=False):
        spelled = [pair for row in rows[start:end] for pair in pieces.spelled(row)]
        assert spelled == list(enumerate(item.tolist()))
    assert rows.max() == 79, "all of it is used by so many items"
    assert len(np.unique(rows)) > 60


def test_what_is_shown_often_is_written_with_fewer_pieces() -> None:
    codes, impressions = popular_codes()
    indptr, _ = CodePieces(80).fit(codes, SIZES, impressions).encode(codes)
    lengths = np.diff(indptr)
    assert np.average(lengths, weights=impressions) < lengths.mean() - 0.1
    even, _ = CodePieces(80).fit(codes, SIZES).encode(codes)
    assert np.average(lengths, weights=impressions) < np.average(np.diff(even), weights=impressions)


def test_saving_and_loading_changes_nothing(tmp_path: Path) -> None:
    codes, impressions = popular_codes()
    pieces = CodePieces(60).fit(codes, SIZES, impressions)
    pieces.save(tmp_path / "pieces.model")
    loaded = CodePieces.load(tmp_path / "pieces.model", SIZES)
    for a, b in zip(pieces.encode(codes), loaded.encode(codes), strict=True):
        np.testing.assert_array_equal(a, b)


def test_what_cannot_be_is_refused() -> None:
    codes, impressions = popular_codes()
    with pytest.raises(SettingError, match="vocabulary must be above the number of codes, 20"):
        CodePieces(20).fit(codes, SIZES)
    with pytest.raises(SettingError, match="Lower the vocabulary"):
        CodePieces(100_000).fit(codes, SIZES)
    with pytest.raises(DataError, match="impressions must be 400 whole numbers"):
        CodePieces(60).fit(codes, SIZES, impressions[:3])
    with pytest.raises(DataError, match="codes must be"):
        ngrams(codes + 8, SIZES, 1)
    with pytest.raises(SettingError, match="must be fitted first"):
        CodePieces(60).encode(codes)
    with pytest.raises(SettingError, match="more than 64 bits"):
        ngrams(np.zeros((1, 5), int), (60_000,) * 5, 5)
