"""Names of items: linked where it is clear, asked back where it is not, never guessed."""

import numpy as np
import pyarrow as pa
import pytest

from genrec.chat.link import CANDIDATES, Linker
from genrec.chat.vocabulary import Vocabulary
from genrec.chat.words import key, printable

TITLES = [
    ("1", "Home Alone", "1990", ["Comedy"]), ("2", "Sabrina", "1954", ["Romance"]), ("3", "Sabrina", "1995", ["Comedy"]),
    ("4", "Lion King, The", "1994", ["Animation"]), ("5", "Alien", "1979", ["Horror"]), ("6", "Aliens", "1986", ["Action"]),
    ("7", "Nobody Loves Me (Keiner liebt mich)", "1994", ["Drama"]), ("8", "Amélie", "2001", ["Comedy", "Romance"]),
    
    ("9", "Davines No.14 Sea Salt Primer for Wizards Hair Spray, 8.45 Ounce", "2010", ["Hair"]),
    ("10", "Blade Runner 2049", "2017", ["Drama"]),
]  # fmt: skip


@pytest.fixture(scope="module")
def linker() -> Linker:
    ids, titles, years, categories = map(list, zip(*TITLES, strict=True))
    table = pa.table({"item_id": ids, "title": titles, "year": years, "categories": categories})
    return Linker(table, Vocabulary(table))


@pytest.mark.parametrize(
    ("said", "item_id", "how"),
    [
        ("home alone", "1", "exact"), ("The Lion King", "4", "exact"), ("keiner liebt mich", "7", "exact"), 
        ("AMELIE", "8", "exact"),
        ("Sabrina (1954)", "2", "exact"), ("sabrina from 1995", "3", "exact"), ("Alien", "5", "exact"), 
        ("aliens", "6", "exact"),
        ("Blade Runner 2049", "10", "exact"), ("hom alone", "1", "fuzzy"), ("sea salt primer davines", "9", "fuzzy"),
    ],
)  # fmt: skip
def test_a_clear_name_is_linked_and_says_how(linker: Linker, said: str, item_id: str, how: str) -> None:
    link = linker.link(said)
    assert (link.item_id, link.how) == (item_id, how)
    assert link.title in str(link)
    assert (link.sure == 1.0) == (how == "exact")


def test_a_name_of_two_items_is_asked_back_and_a_year_or_a_value_decides(linker: Linker) -> None:
    link = linker.link("Sabrina")
    assert link.item_id is None
    assert {title for _, title in link.candidates} == {"Sabrina (1954)", "Sabrina (1995)"}
    ids = [item_id for item_id, _ in link.candidates]
    assert linker.choose(ids, "the one from 1995") == "3"
    assert linker.choose(ids, "the romance") == "2"
    assert linker.choose(ids, "hmm") is None


def test_a_name_of_nothing_is_linked_to_nothing(linker: Linker) -> None:
    link = linker.link("xyzzy plugh")
    assert link.item_id is None
    assert link.candidates == ()


def test_removed_items_are_not_named(linker: Linker) -> None:
    live = np.ones(len(TITLES), bool)
    live[0] = False
    assert Linker(linker.table, linker.vocabulary, live=live).link("Home Alone").item_id is None


def test_vectors_offer_but_never_decide(linker: Linker) -> None:
    def encode(table: pa.Table) -> np.ndarray:
        return np.array([[1.0, 0.0] if "Alone" in t or "solo" in t else [0.0, 1.0] for t in table.column("title").to_pylist()])

    link = Linker(linker.table, linker.vocabulary, encode).link("casa solo")
    assert link.item_id is None
    assert link.how == "vector"
    assert link.candidates == (("1", "Home Alone (1990)"),)


def test_many_titles_are_looked_up_without_reading_them_all() -> None:
    words = ["red", "blue", "soft", "hard", "fox", "lamp", "moon", "river", "stone", "glass"]
    titles = [f"{words[i % 10]} {words[i // 10 % 10]} {words[i // 100 % 10]} number {i}" for i in range(20_000)]
    table = pa.table({"item_id": [str(i) for i in range(len(titles))], "title": titles})
    linker = Linker(table, Vocabulary(table))
    assert linker.link(titles[12_345]).item_id == "12345"
    _, pieces = linker._pieces
    assert pieces.shape[1] == 20_000
    compared = linker._fuzzy("blue lamp fox nubmer 9876")
    assert 0 < len(compared) <= CANDIDATES  # letter by letter only what shares pieces with it


def test_keys_meet_and_what_is_printed_steers_nothing() -> None:
    assert key("Lion King, The") == key("the lion kings")
    assert key("Thelma & Louise") == key("thelma and louise")
    assert printable("\x1b[31mRed\x1b[0m \x1b]0;owned\x07title\u202e\x00\n next") == "Red title next"
    assert len(printable("x" * 10_000)) == 120
