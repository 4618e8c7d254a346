"""What a code means, in words and items."""

import numpy as np

from genrec.tokenizers.meaning import meanings


def test_a_code_is_described_by_its_middle_and_by_words_that_others_lack() -> None:
    titles = ["red running shoe", "blue running shoe", "green running shoe", "red shirt", "blue shirt"]
    vectors = np.array([[0.0], [0.1], [1.0], [5.0], [5.2]])
    shoes, shirts = meanings(np.array([7, 7, 7, 2, 2]), titles, vectors)
    assert (shoes.code, shoes.items) == (7, 3)
    assert shoes.titles[0] == "blue running shoe", "the nearest to the middle"
    assert shoes.words == ["running", "shoe"], "not the colours, which shirts have too"
    assert (shirts.code, shirts.items, shirts.words) == (2, 2, ["shirt"])


def test_items_without_words_are_no_trouble() -> None:
    [found] = meanings(np.zeros(3, int), ["", "12", "--"], np.zeros((3, 2)))
    assert (found.items, found.words) == (3, [])
    assert len(meanings(np.arange(50), ["x"] * 50, np.zeros((50, 2)), most=5)) == 5
