"""Whether a conversation obeys the rules that it says it understood, and how much it understands.

    python benchmarks/rule_obedience.py --data DATA          # two public catalogues below DATA and the shop
    python benchmarks/rule_obedience.py                      # the synthetic shop alone

In: items tables. Messages are generated from templates that were checked by hand: each says what it means as a plain test of an
item. The models are fitted for one epoch on random histories: obedience must not depend on quality. Out, per domain:

- exact: the rules allow exactly the items that the message means;
- said: something was not understood, and the answer says so;
- wrong: neither. It is understood wrongly, and silently;
- items: how many came back; broken: items that break a rule shown as understood, checked here against the table, without
  genrec's filter code; strange: items outside the catalogue or shown twice.

Seed 0 draws templates, values and histories.
"""

import argparse
import json
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from genrec.chat.dialogue import Conversation, State
from genrec.data.hashing import table_hash
from genrec.data.synthetic import make_shop
from genrec.fit import fit
from genrec.recipe import load_recipe
from genrec.recommender import Recommender

Row = dict[str, Any]
Test = Callable[[Row], bool]
Part = tuple[str, Test | None]  # what is said, and what it means (None: nothing that a column says)
TINY = {
    "text.encoder": "tfidf-svd", "text.collaborative_width": 16, "model.hidden_size": 32, "model.layers": 1, "model.heads": 2,
    "model.feed_forward": 64, "training.epochs": 1, "training.validation_users": 20, "decoding.beam_width": 20,
    "evaluation.max_questions": 20,
}  # fmt: skip
OPENINGS = ("", "I want ", "Show me ", "Please recommend ", "Could you find me ", "I am looking for ", "Do you have ")
# Nothing in these catalogues says so: it must be said, not ignored.
UNKNOWN = (
    "not a sequel",
    "waterproof",
    "something funny",
    "with good reviews",
    "my kids would enjoy it",
    "not too long",
    "cheap",
)


def one_of(column: str, *values: str) -> Test:
    return lambda row: bool(set(values) & set(_list(row[column])))


def none_of(column: str, *values: str) -> Test:
    """An item of which the column says nothing is not known to be without the value."""
    return lambda row: row[column] is not None and not set(values) & set(_list(row[column]))


def number(column: str, test: Callable[[float], bool]) -> Test:
    return lambda row: row[column] is not None and test(float(row[column]))


def _list(value: Any) -> list:
    return value if isinstance(value, list) else [] if value is None else [value]


def years(draw: np.random.Generator) -> Iterator[Part]:
    """Ways to speak of years."""
    year, decade = int(draw.integers(1955, 2000)), int(draw.integers(5, 10)) * 10
    low, high = sorted(map(int, draw.choice(np.arange(1950, 2001), 2, replace=False)))
    yield f"after {year}", number("year", lambda y: y > year)
    yield f"before {year}", number("year", lambda y: y < year)
    yield f"since {year}", number("year", lambda y: y >= year)
    yield f"from {year}", number("year", lambda y: y == year)
    yield f"from the {decade}s", number("year", lambda y: 1900 + decade <= y <= 1909 + decade)
    yield f"not from the {decade}s", number("year", lambda y: not 1900 + decade <= y <= 1909 + decade)
    yield f"between {low} and {high}", number("year", lambda y: low <= y <= high)
    yield f"{year} or newer", number("year", lambda y: y >= year)
    yield f"newer than {year}", number("year", lambda y: y > year)
    yield f"no later than {year}", number("year", lambda y: y <= year)


def prices(draw: np.random.Generator) -> Iterator[Part]:
    """Ways to speak of prices."""
    price, (low, high) = int(draw.integers(8, 60)), sorted(map(int, draw.choice(np.arange(5, 80), 2, replace=False)))
    yield f"under ${price}", number("price", lambda p: p < price)
    yield f"below {price} dollars", number("price", lambda p: p < price)
    yield f"at most {price} euros", number("price", lambda p: p <= price)
    yield f"${price} or less", number("price", lambda p: p <= price)
    yield f"over ${price}", number("price", lambda p: p > price)
    yield f"between ${low} and ${high}", number("price", lambda p: low <= p <= high)
    yield f"price up to {price}", number("price", lambda p: p <= price)
    yield f"not more than {price} bucks", number("price", lambda p: p <= price)
    yield f"I can spend {price} dollars", number("price", lambda p: p <= price)


def values(column: str, names: list[tuple[str, list[str]]], draw: np.random.Generator, ways: tuple[str, ...]) -> Iterator[Part]:
    """Ways to speak of values. names: what is said, and the spellings in the table that it means. ways: `{}` stands for it."""
    (a, all_a), (b, all_b) = (names[int(n)] for n in draw.choice(len(names), 2, replace=False))
    for way in ways:
        yield way.format(a), one_of(column, *all_a)
    yield f"{a} or {b}", one_of(column, *all_a, *all_b)
    yield f"no {a}", none_of(column, *all_a)
    yield f"not {a}", none_of(column, *all_a)
    yield f"nothing with {a}", none_of(column, *all_a)


def domain(name: str, table: pa.Table, draw: np.random.Generator) -> list[Callable[[], list[Part]]]:
    """The kinds of parts that messages of a domain are made of."""

    def common(column: str, least: int) -> list[tuple[str, list[str]]]:
        counts = Counter(value for row in table.column(column).to_pylist() for value in _list(row))
        return [(value, [value]) for value, count in sorted(counts.items()) if count >= least]

    if name == "shop":
        brands = common("brand", 5)
        kinds = [(full.split(" > ")[-1], [full]) for full, _ in common("category", 5)]
        return [
            lambda: list(prices(draw)),
            lambda: list(values("brand", brands, draw, ("by {}", "from {}", "brand {}"))),
            lambda: list(values("category", kinds, draw, ("{}", "something in {}", "category {}"))),
        ]
    every = {value for row in table.column("categories").to_pylist() for value in _list(row)}
    films = {word: [v for v in (word, f"{word} film", f"{word} Film") if v in every] for word in MOVIE_WORDS}
    genres = [(value, films[value]) for value, _ in common("categories", 40) if value in MOVIE_WORDS]
    found = [lambda: list(years(draw)), lambda: list(values("categories", genres, draw, ("{}", "a {} movie", "{} please")))]
    if name == "crs_opendialkg":
        directors, actors = common("director", 4), common("actors", 4)
        found.append(lambda: list(values("director", directors, draw, ("directed by {}", "director {}")))[:2])
        found.append(lambda: list(values("actors", actors, draw, ("starring {}", "with the actor {}")))[:2])
    return found


# Genres that are one value of the table and a part of no other that the same word may mean.
MOVIE_WORDS = {
    "Animation", "Children's", "Documentary", "Film-Noir", "Horror", "Musical", "Mystery", "Western", "Thriller", "Comedy",
    "Drama", "Sci-Fi", "Suspense", "Dystopia", "Satire", "Parody", "Biography", "Time travel", "Black comedy",
}  # fmt: skip


def messages(name: str, table: pa.Table, count: int, draw: np.random.Generator) -> Iterator[tuple[str, list[Part]]]:
    """`count` messages of one to three parts."""
    kinds = domain(name, table, draw)
    for _ in range(count):
        chosen = [kinds[int(n)]() for n in draw.permutation(len(kinds))[: int(draw.integers(1, len(kinds) + 1))]]
        parts = [options[int(draw.integers(len(options)))] for options in chosen]
        if draw.random() < 0.15:
            parts.append((UNKNOWN[int(draw.integers(len(UNKNOWN)))], None))
        yield OPENINGS[int(draw.integers(len(OPENINGS)))] + ", ".join(text for text, _ in parts), parts


def obeys(rule: dict[str, Any], row: Row) -> bool:
    """A rule as it was shown, held against the table: nothing of genrec's filter is used."""
    if rule["kind"] == "values":
        known = any(row[column] is not None for column in rule["choices"])
        hit = any(value in _list(row[column]) for column, wanted in rule["choices"].items() for value in wanted)
        return known and hit != rule["negative"]
    if rule["kind"] == "range":
        if row[rule["column"]] is None:
            return False
        value, low, high = float(row[rule["column"]]), rule["low"], rule["high"]
        inside = (low is None or value > low or (value == low and not rule["low_open"])) and (
            high is None or value < high or (value == high and not rule["high_open"])
        )
        return inside != rule["negative"]
    return True


def measure(recommender: Recommender, name: str, count: int, seed: int = 0) -> dict[str, Any]:
    """Counts over `count` messages, and up to 5 examples of messages that were understood wrongly."""
    draw = np.random.default_rng(seed)
    conversation = Conversation(recommender, k=10, vectors=False)
    version = recommender.catalogue.current
    rows = version.table.to_pylist()
    by_id = {row["item_id"]: row for row in rows}
    counts: Counter[str] = Counter(messages=count)
    wrong = []
    for message, parts in messages(name, version.table, count, draw):
        history = [rows[int(n)]["item_id"] for n in draw.integers(len(rows), size=3)]
        heard = conversation.listen(message, State(), history)
        turn = conversation.turn(message, State(), history, explain=False)
        where = heard.request.where
        allowed = version.where(where) if where else np.ones(len(rows), bool)
        meant = np.array([all(test is None or test(row) for _, test in parts) for row in rows])
        if all(test is not None for _, test in parts) and np.array_equal(allowed, meant) and not turn.unknown:
            counts["exact"] += 1
        elif turn.unknown:
            counts["said"] += 1
            counts["mappable_but_said"] += all(test is not None for _, test in parts)
        else:
            counts["wrong"] += 1
            wrong.append((message, turn.rules))
        counts["items"] += len(turn.items)
        counts["none"] += not turn.items
        ids = [item.item_id for item in turn.items]
        counts["strange"] += len(ids) - len(set(ids) & set(by_id))
        rules = [rule.to_json() for rule in turn.state.rules]
        counts["broken"] += sum(not all(obeys(rule, by_id[item]) for rule in rules) for item in ids)
    return {"domain": name} | {key: counts[key] for key in COLUMNS} | {"examples": wrong[:5]}


COLUMNS = ("messages", "exact", "said", "mappable_but_said", "wrong", "items", "none", "broken", "strange")


def tiny_bundle(table: pa.Table, folder: Path, seed: int = 0) -> Recommender:
    """A recommender over these items, fitted for one epoch on random histories."""
    draw = np.random.default_rng(seed)
    ids = [str(item) for item in table.column("item_id").to_pylist()]
    users, items = np.repeat(np.arange(150), 8), np.concatenate([draw.choice(len(ids), 8, replace=False) for _ in range(150)])
    events = pa.table({"user_id": users.astype(str), "item_id": [ids[item] for item in items]})
    return Recommender.load(fit(table, events, folder, load_recipe(overrides=TINY)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder with movielens_1m/items.parquet and crs_opendialkg/items.parquet")
    parser.add_argument("--messages", type=int, default=250, help="per domain (default: %(default)s)")
    args = parser.parse_args()
    tables = {"shop": (make_shop(users=50, items=600, seed=0)[0].table, "seed 0")}
    for name in ("movielens_1m", "crs_opendialkg") if args.data else ():
        path = args.data / name / "items.parquet"
        tables[name] = pq.read_table(path), table_hash(pq.read_table(path))[:12]
    for name, (table, source) in tables.items():
        with tempfile.TemporaryDirectory() as folder:
            found = measure(tiny_bundle(table, Path(folder) / name), name, args.messages)
        print(json.dumps({"items table": source} | found, ensure_ascii=False), flush=True)


if __name__ == "__main__":
    main()
