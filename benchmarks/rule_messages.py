"""Whether hand-written messages are understood as a person would, and whether every returned item obeys what was understood.

    python benchmarks/rule_messages.py                       # the synthetic shop, with years
    python benchmarks/rule_messages.py --data DATA           # Amazon Beauty and MovieLens-1M below DATA too
    python benchmarks/rule_messages.py --misses misses.txt   # every message that was understood otherwise, with what came

In: `rule_messages.jsonl`, one message a line, written and judged one by one: `say` with placeholders, `means` in the notation
below, `unknown` words that no column can mean and the answer must therefore say, `shown` (four items were shown before) and
`rules` (in force before). Placeholders are filled from the catalogue at hand; a message that it cannot fill is skipped and
counted. Out, per catalogue:

- exact: understood as written down: rules, items named, what is taken back, and nothing said that was not expected;
- said: otherwise, but the answer says that something was not understood, or asks back;
- wrong: otherwise, and silently;
- items: returned by the turns; broken: items that break a rule in force after the turn, held against the table without genrec's
  filter; strange: items outside the catalogue or twice.

Notation of `means`: `price < 20`, `price <= 20`, `price 10..20`, `year = 1990`, `not year 1980..1989`, `brand: A or B`,
`brand: not A, B`, `kind: A and B` (both where items have several kinds, else one of them), `unseen`, `liked T`, `seen T`,
`rejected T`, `like T` (T is liked, and a value in common is asked for), `others`, `include seen`, `forget 1`, `forget all`,
`hello`, `thanks`, `why 2`. Placeholders: brand, kind, title, price, year, each with 2 or 3 behind it for another one, `:lower`,
`:typo`, upper case; `{price@2}` of the second item shown, `{price@min}` of all shown, `{price@title}` of the item {title}.

A model of one epoch on random histories answers: obedience must not depend on quality. Seed 0 draws all.
"""

import argparse
import json
import re
import tempfile
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from rule_obedience import obeys, tiny_bundle

from genrec.chat.dialogue import Conversation, Heard, State
from genrec.chat.rules import Rule
from genrec.data.hashing import table_hash
from genrec.data.synthetic import make_shop
from genrec.recommender import Recommender

FILE = Path(__file__).with_suffix(".jsonl")
ROLES = {"price": ("price",), "year": ("year",), "brand": ("brand",), "kind": ("category", "categories"), "title": ("title",)}
SHOWN = 4


def load() -> list[dict[str, Any]]:
    return [json.loads(line) for line in FILE.read_text("utf-8").splitlines()]


class CannotFillError(Exception):
    """The catalogue has no such column, or no such value."""


@dataclass
class Meaning:
    """What a message is, in a form in which two readings can be compared."""

    bounds: dict[str, tuple] = field(default_factory=dict)  # column -> what of the numbers is left, as one range
    holes: set[tuple] = field(default_factory=set)  # ranges that are not meant
    values: set[frozenset] = field(default_factory=set)  # one of each must hold
    never: set[tuple[str, str]] = field(default_factory=set)
    other: set[tuple] = field(default_factory=set)

    def add(self, rule: Rule) -> None:
        pairs = {(column, value) for column, values in rule.choices.items() for value in values}
        if rule.kind == "seen":
            self.other.add(("unseen",))
        elif rule.kind == "values" and rule.negative:
            self.never |= pairs
        elif rule.kind == "values":
            self.values.add(frozenset(pairs))
        else:
            low, high = (-np.inf if rule.low is None else rule.low), (np.inf if rule.high is None else rule.high)
            if rule.negative:
                self.holes.add((rule.column, low, rule.low_open, high, rule.high_open))
                return
            a, a_open, b, b_open = self.bounds.get(rule.column or "", (-np.inf, False, np.inf, False))
            a, a_open = max((a, a_open), (low, rule.low_open))
            b, still = min((b, not b_open), (high, not rule.high_open))
            self.bounds[rule.column or ""] = (a, a_open, b, not still)


class World:
    """A catalogue from which placeholders are filled."""

    def __init__(self, table: pa.Table, seed: int = 0) -> None:
        self.rows = table.to_pylist()
        self.draw = np.random.default_rng(seed)
        self.columns = {role: name for role, names in ROLES.items() for name in names if name in table.column_names}
        titles = Counter(row["title"] for row in self.rows if row["title"])
        self.named = [
            row for row in self.rows
            if row["title"] and titles[row["title"]] == 1 and re.fullmatch(r"[\w']+( [\w']+){1,7}", row["title"])
            and all(row[self.columns[role]] not in (None, "", []) for role in self.columns)
        ]  # fmt: skip
        self.brands = self._values("brand", lambda text: re.fullmatch(r"[A-Za-z' ]{4,}", text))
        self.kinds = self._values("kind", lambda text: re.fullmatch(r"[A-Za-z' -]{3,}", text))

    def _values(self, role: str, fit: Any) -> dict[str, tuple[str, ...]]:
        """What can be said of a column -> the values of the table that it means: all paths of which it is a part."""
        name = self.columns.get(role)
        counts = Counter(value for row in self.rows for value in _list(row[name])) if name else Counter()
        meant: dict[str, set[str]] = {}
        for value in counts:
            for part in value.split(" > "):
                meant.setdefault(part.lower().rstrip("s"), set()).add(value)
        said = {part for value in counts for part in value.split(" > ")}
        least = max(5, len(self.rows) // 200)
        many = {part: tuple(sorted(meant[part.lower().rstrip("s")])) for part in sorted(said)}
        return {
            part: values for part, values in many.items()
            if fit(part) and len(values) <= 30 and least <= sum(counts[v] for v in values) <= len(self.rows) // 2
        }  # fmt: skip

    def fill(self, template: dict[str, Any]) -> "Filled":
        """Raises `CannotFillError`."""
        text = json.dumps(template)
        for role in ROLES:
            if re.search(rf"\{{{role}|[\"\s]{role}(?::| [<>=\d]|\s\{{)", text, re.I) and role not in self.columns:
                raise CannotFillError(role)
        shown = [self.named[int(n)] for n in self.draw.choice(len(self.named), SHOWN + 3, replace=False)]
        filler = Filler(self, shown[:SHOWN], shown[SHOWN:], single=":typo" in text)
        say = re.sub(r"\{([^}]+)\}", lambda match: filler.text(match[1]), template["say"])
        means = [re.sub(r"\{([^}]+)\}", lambda match: filler.text(match[1], said=False), part) for part in template["means"]]
        before = [re.sub(r"\{([^}]+)\}", lambda match: filler.text(match[1], said=False), r) for r in template.get("rules", [])]
        unknown = [re.sub(r"\{([^}]+)\}", lambda match: filler.text(match[1]), part) for part in template.get("unknown", [])]
        ids = tuple(row["item_id"] for row in shown[:SHOWN]) if template.get("shown") else ()
        rules = tuple(rule for part in before for rule in self.rules(part))
        return Filled(say, self.meaning(means, ids), unknown, State(shown=ids, reasons=("",) * len(ids), rules=rules))

    def meaning(self, parts: Iterable[str], shown: Sequence[str]) -> Meaning:
        out = Meaning()
        ids = {row["title"]: row["item_id"] for row in self.named}
        for part in parts:
            word, _, rest = part.partition(" ")
            if word in ("liked", "seen", "rejected"):
                out.other.add((word, ids[rest]))
            elif word == "like":
                out.other |= {("liked", ids[rest]), ("like", ids[rest])}
            elif word in ("forget", "why"):
                out.other.add((word, rest))
            elif re.fullmatch(r"year = \d+ or \d+", part):
                out.other.add((part,))  # a rule holds one range: this one is beyond genrec, and stays in the count
            elif part in ("others", "include seen", "unseen", "hello", "thanks"):
                out.other.add((part,))
            else:
                for rule in self.rules(part):
                    out.add(rule)
        return out

    def rules(self, part: str) -> list[Rule]:
        """The rules that a line of the notation stands for."""
        if match := re.fullmatch(r"(brand|kind): (not )?(.*)", part):
            column, known = self.columns[match[1]], self.brands if match[1] == "brand" else self.kinds
            every = self.rows[0][column]
            either = "|".join(re.escape(word) for word in sorted(known, key=len, reverse=True))
            words = re.findall(either, match[3]) or [match[3]]  # "bath and body" is one kind
            both = " and " in re.sub(either, "", match[3])
            groups = [known.get(word, (word,)) for word in words]
            if both and isinstance(every, list):
                return [Rule("values", {column: group}) for group in groups]
            return [Rule("values", {column: tuple(v for group in groups for v in group)}, bool(match[2]))]
        match = re.fullmatch(r"(not )?(price|year) (?:(<=|>=|<|>|=) ([\d.]+)|([\d.]+?)\.\.([\d.]+))", part)
        if match is None:
            raise ValueError(f"{part!r} is none of the notation")
        column, sign = self.columns[match[2]], match[3]
        if sign is None:
            return [Rule("range", column=column, low=float(match[5]), high=float(match[6]), negative=bool(match[1]))]
        number = float(match[4])
        low = {"low": number, "low_open": sign == ">"} if sign in (">", ">=", "=") else {}
        high = {"high": number, "high_open": sign == "<"} if sign in ("<", "<=", "=") else {}
        return [Rule("range", column=column, negative=bool(match[1]), **low, **high)]


class Filler:
    """Values for one message; a placeholder has one value throughout."""

    def __init__(self, world: World, shown: list[dict], others: list[dict], single: bool) -> None:
        draw = world.draw
        self.world, self.shown, self.values = world, shown, {}
        price, year = int(draw.integers(8, 60)), int(draw.integers(1955, 1990))
        self.values |= {"price": str(price), "price2": str(price + int(draw.integers(5, 40)))}
        self.values |= {"year": str(year), "year2": str(year + int(draw.integers(3, 12)))}
        self.values |= {"title": others[0]["title"], "title2": others[1]["title"]}
        self.of_title = others[0]
        for role, known in (("brand", world.brands), ("kind", world.kinds)):
            fit = [text for text in known if not single or re.fullmatch(r"[A-Za-z]{6,}", text)]
            if role in world.columns and len(fit) < 3:
                raise CannotFillError(f"three of {role}")
            chosen: list[str] = []
            for place in draw.permutation(len(fit)):  # none a part of another: "shampoo" and "shampoo sets"
                alone = all(not set(known[fit[place]]) & set(known[one]) for one in chosen)
                chosen += [fit[place]] if alone and len(chosen) < 3 else []
            self.values |= {f"{role}{n if n > 1 else ''}": text for n, text in enumerate(chosen, 1)}

    def text(self, name: str, said: bool = True) -> str:
        """What stands for a placeholder, as people say it or as the table has it."""
        plain, _, how = name.partition(":")
        role, _, where = plain.partition("@")
        if where:
            return self._of_item(role, where)
        value = self.values.get(role.lower())
        if value is None:
            raise CannotFillError(name)
        if not said:
            return value
        if role.isupper():
            return value.upper()
        if how == "typo":
            middle = len(value) // 2
            return value[:middle] + value[middle + 1] + value[middle] + value[middle + 2 :]
        return value.lower() if how == "lower" or role.startswith("kind") else value

    def _of_item(self, role: str, where: str) -> str:
        column = self.world.columns[role]
        if where in ("min", "max"):
            return str((min if where == "min" else max)(float(row[column]) for row in self.shown))
        value = (self.of_title if where == "title" else self.shown[int(where) - 1])[column]
        return str(value)


@dataclass
class Filled:
    say: str
    means: Meaning
    unknown: list[str]
    state: State


def understood(heard: Heard, rows: dict[str, dict]) -> Meaning:
    """What genrec made of a message."""
    reading, out = heard.reading, Meaning()
    for rule in reading.add:
        alike = [link.item_id for link in reading.liked if link.item_id and rule.note == f"like {link.title}"]
        values = {value for chosen in rule.choices.values() for value in chosen}
        if alike and all(values & set(_list(rows[alike[0]][column])) for column in rule.choices):
            out.other.add(("like", alike[0]))
        else:
            out.add(rule)
    for feeling in ("liked", "seen", "rejected"):
        out.other |= {(feeling, link.item_id) for link in getattr(reading, feeling)}
    out.other |= {("forget", str(place + 1)) for place in reading.remove}
    out.other |= {("forget", "all")} if reading.clear else set()
    out.other |= {("others",)} if reading.more else set()
    out.other |= {("include seen",)} if reading.include_seen else set()
    out.other |= {(reading.greeting,)} if reading.greeting and not heard.search else set()
    if heard.why:
        out.other |= {
            ("why", str(n)) for n, item in enumerate(heard.context.shown, 1) if heard.why.startswith(rows[item]["title"])
        }
    return out


def as_expected(said: Sequence[str], expected: Sequence[str]) -> bool:
    """Whether every expected word was given back, and every part given back holds an expected word."""
    words = [set(re.findall(r"\w+", part.lower())) for part in said]
    wanted = {word for part in expected for word in re.findall(r"\w+", part.lower())}
    return wanted <= set().union(*words) and all(part & wanted for part in words)


def measure(conversation: Conversation, table: pa.Table, templates: Sequence[dict], search: bool = True) -> dict[str, Any]:
    """Counts over the messages and the misses. search: whether items are looked for, too."""
    world = World(table)
    rows = {row["item_id"]: row for row in world.rows}
    counts: Counter[str] = Counter()
    misses = []
    for template in templates:
        counts["templates"] += 1
        try:
            filled = world.fill(template)
        except CannotFillError:
            counts["skipped"] += 1
            continue
        heard = conversation.listen(filled.say, filled.state)
        found = understood(heard, rows)
        if found == filled.means and as_expected(heard.reading.unknown, filled.unknown):
            counts["exact"] += 1
        else:
            said = bool(heard.reading.unknown or heard.state.asked or heard.problems)
            counts["said" if said else "wrong"] += 1
            misses.append(("said" if said else "WRONG", filled.say, template["means"], found, heard.reading.unknown))
        if not search:
            continue
        history = [world.rows[int(n)]["item_id"] for n in world.draw.integers(len(rows), size=3)]
        turn = conversation.turn(filled.say, filled.state, history, explain=False)
        ids = [item.item_id for item in turn.items]
        counts["items"] += len(ids)
        counts["strange"] += len(ids) - len(set(ids) & set(rows))
        rules = [rule.to_json() for rule in turn.state.rules]
        counts["broken"] += sum(not all(obeys(rule, rows[item]) for rule in rules) for item in ids if item in rows)
    return {key: counts[key] for key in COLUMNS} | {"misses": misses}


COLUMNS = ("templates", "skipped", "exact", "said", "wrong", "items", "broken", "strange")


def shop_with_years() -> pa.Table:
    """The synthetic shop and a made-up year of each item, so that every message can be filled."""
    table = make_shop(users=50, items=600, seed=0)[0].table
    return table.append_column("year", pa.array([1950 + 37 * row % 61 for row in range(table.num_rows)]))


def _list(value: Any) -> list:
    return value if isinstance(value, list) else [] if value is None else [value]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder with amazon2014_beauty/items.parquet and movielens_1m/items.parquet")
    parser.add_argument("--misses", type=Path, help="where to write the messages that were understood otherwise")
    args = parser.parse_args()
    tables = {"shop": shop_with_years()}
    for name in ("amazon2014_beauty", "movielens_1m") if args.data else ():
        tables[name] = pq.read_table(args.data / name / "items.parquet")
    lines = []
    for name, table in tables.items():
        with tempfile.TemporaryDirectory() as folder:
            recommender: Recommender = tiny_bundle(table, Path(folder) / name)
            found = measure(Conversation(recommender, k=10, vectors=False), table, load())
        lines += [f"{name}\t" + "\t".join(map(str, miss)) for miss in found.pop("misses")]
        source = "seed 0" if name == "shop" else table_hash(table)[:12]
        print(json.dumps({"items table": name, "hash": source} | found), flush=True)
    if args.misses:
        args.misses.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
