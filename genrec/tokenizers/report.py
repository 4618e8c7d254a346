"""The quality report of an item tokenizer: numbers, what they should be, and what to do where they are not.

In: a code table, the tokenizer, item vectors, training histories and questions. Out: a `Quality`, as JSON (`to_dict`), as
lines for the terminal (`summary`), and as a page with plots (page.py). No recommender is trained.

The limits are genrec's own, set where the shipped recipes differ on public data (docs/tokenizers.md); a warning is a question,
not a verdict.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from genrec.codes import CodeTable
from genrec.data.interactions import Histories
from genrec.data.splits import Targets
from genrec.tokenizers import quality
from genrec.tokenizers.base import ItemTokenizer

PAIRS = 10_000


@dataclass(frozen=True)
class Quality:
    """Numbers of quality.py, by name; lists have one number per level. None where there is nothing to measure it on.

    collision_rate_before: of the tokenizer's own codes; collision_rate, largest_group: after the policy. gini_used: over tuples
    in use (FORGE's code); gini_possible: over all that could be (FORGE's paper). embedding_hit_rate: of the vectors, the best a
    tokenizer can keep; decoded_hit_rate: of the vectors decoded from the codes; code_hit_rate: of the codes as such.
    rank_correlation: of codes in common with cosine (vectors) and with following each other (behaviour).
    """

    family: str
    policy: str
    items: int
    sizes: list[int]
    tuples_in_use: int
    collision_rate_before: float
    collision_rate: float
    largest_group: int
    utilisation: list[float]
    entropy: list[float]
    gini_used: float
    gini_possible: float
    reconstruction_error: float
    neighbourhood_recall: float
    rank_correlation_vectors: float
    rank_correlation_behaviour: float | None
    behaviour_lift: float | None
    embedding_hit_rate: float | None
    decoded_hit_rate: float | None
    code_hit_rate: float | None
    prefix_purity: float | None
    largest_category: float | None

    @property
    def findings(self) -> list["Finding"]:
        """Every check with its verdict, in the order of the report."""
        return [Finding(check, check.value(self)) for check in CHECKS]

    def to_dict(self) -> dict[str, Any]:
        """Numbers and findings, ready for JSON."""
        findings = [
            {"name": f.check.name, "value": f.value, "limit": f.check.limit, "passed": f.passed, "advice": f.check.advice}
            for f in self.findings
        ]
        return {**asdict(self), "findings": findings}

    def summary(self) -> str:
        """The findings as lines, with advice where something could be better."""
        lines = [f"{self.items} items, codes {self.sizes}, {self.tuples_in_use} tuples in use, policy {self.policy}"]
        for finding in self.findings:
            verdict = {True: "pass", False: "warn", None: "  - "}[finding.passed]
            value = "nothing to measure it on" if finding.value is None else f"{finding.value:.3f}"
            lines.append(f"  {verdict}  {finding.check.name:<34} {value:>8}  ({finding.check.limit})")
            if finding.passed is False:
                lines.append(f"        {finding.check.advice}")
        return "\n".join(lines)


@dataclass(frozen=True)
class Check:
    """name: what is looked at. limit: in words. passes: value -> whether it is within. advice: what to do if not."""

    name: str
    value: Callable[[Quality], float | None]
    limit: str
    passes: Callable[[float], bool]
    advice: str


@dataclass(frozen=True)
class Finding:
    """A check and what was found; passed is None where there was nothing to measure."""

    check: Check
    value: float | None

    @property
    def passed(self) -> bool | None:
        return None if self.value is None else bool(self.check.passes(self.value))


def _kept(q: Quality) -> float | None:
    if q.decoded_hit_rate is None or not q.embedding_hit_rate:
        return None
    return q.decoded_hit_rate / q.embedding_hit_rate


CHECKS = (
    Check("collisions before the policy", lambda q: q.collision_rate_before, "at most 0.2", lambda v: v <= 0.2,
          "Many items look the same to the tokenizer. More levels, a larger codebook, or vectors with more in them."),
    Check("items of the largest group", lambda q: float(q.largest_group), "at most 5", lambda v: v <= 5,
          "A recommender cannot tell these items apart. collision_policy 'knn-5' or 'suffix'."),
    Check("codes in use, worst level", lambda q: min(q.utilisation), "at least 0.8", lambda v: v >= 0.8,
          "Codes that nobody uses learn nothing. A smaller codebook; for rq-vae dead_below: 1 and more steps."),
    Check("evenness of codes, worst level", lambda q: min(q.entropy), "at least 0.8", lambda v: v >= 0.8,
          "A few codes carry most items. rq_kmeans.balanced: true, or vectors that are centred and scaled."),
    Check("Gini over tuples in use", lambda q: q.gini_used, "at most 0.4", lambda v: v <= 0.4,
          "Items crowd on few tuples. collision_policy 'random-5' or 'knn-5', or more levels."),
    Check("what the codes lose of the vectors", lambda q: q.reconstruction_error, "at most 0.6", lambda v: v <= 0.6,
          "The codes keep little of the vectors. More levels or a larger codebook."),
    Check("nearest neighbours kept by codes", lambda q: q.neighbourhood_recall, "at least 0.1", lambda v: v >= 0.1,
          "Items that are near have other codes. For ordered families the first level matters most: a larger first codebook."),
    Check("hit rate kept by decoded vectors", _kept, "at least 0.5", lambda v: v >= 0.5,
          "What tells what people take next is lost in the codes. More levels or a larger codebook."),
    Check("followers share their first code", lambda q: q.behaviour_lift, "at least 3 times chance", lambda v: v >= 3,
          "Codes say nothing about what people do. Raise text.collaborative_weight."),
)  # fmt: skip


def measure(
    table: CodeTable,
    tokenizer: ItemTokenizer,
    vectors: np.ndarray,
    train: Histories | None = None,
    questions: Targets | None = None,
    categories: np.ndarray | None = None,
    seed: int = 0,
) -> Quality:
    """All numbers. vectors: [N, D] in the table's order. questions: of the validation part, so that nothing of the test is
    seen. categories: one label per item, empty where unknown.
    """
    codes, ordered = table.codes, tokenizer.ordered
    own = codes[:, : len(tokenizer.sizes)]  # without a suffix or an id, which mean nothing
    plain, decoded = tokenizer.encode(vectors), tokenizer.decode(own)
    counts = quality.tuple_counts(codes)
    possible = float(np.prod([float(size) for size in table.sizes]))
    near = quality.neighbours(vectors, seed)
    random = np.random.default_rng(seed)
    pairs = np.concatenate([near[random.permutation(len(near))[:PAIRS]], random.integers(0, len(codes), (PAIRS, 2))])
    unit = quality.unit_rows(vectors)
    known = np.zeros(len(codes), bool) if categories is None else categories != ""
    labels = None if categories is None or len(set(categories[known].tolist())) < 2 else categories[known]
    correlation = lift = hits = hits_decoded = hits_codes = None
    if train is not None and len(train.following_pairs()):
        correlation = quality.behaviour_correlation(own, train, ordered, PAIRS, seed)
        lift = quality.behaviour_lift(own, train, seed=seed)
    if questions is not None and len(questions):
        asked = quality.fewer(questions, len(codes), seed)
        hits = quality.embedding_hit_rate(vectors, asked.histories, asked.items)
        hits_decoded = quality.embedding_hit_rate(decoded, asked.histories, asked.items)
        hits_codes = quality.code_hit_rate(own, asked.histories, asked.items, ordered)
    return Quality(
        family=tokenizer.family,
        policy=table.policy,
        items=len(table),
        sizes=list(table.sizes),
        tuples_in_use=len(counts),
        collision_rate_before=quality.collision_rate(plain),
        collision_rate=quality.collision_rate(codes),
        largest_group=int(counts.max()),
        utilisation=quality.utilisation(own, tokenizer.sizes),
        entropy=quality.entropy(own, tokenizer.sizes),
        gini_used=quality.gini(counts),
        gini_possible=quality.gini(counts, possible=possible),
        reconstruction_error=quality.reconstruction_error(vectors, decoded),
        neighbourhood_recall=quality.neighbourhood_recall(own, vectors, ordered, seed=seed),
        rank_correlation_vectors=quality.rank_correlation(
            own, (unit[pairs[:, 0]] * unit[pairs[:, 1]]).sum(axis=1), pairs, ordered
        ),
        rank_correlation_behaviour=correlation,
        behaviour_lift=lift,
        embedding_hit_rate=hits,
        decoded_hit_rate=hits_decoded,
        code_hit_rate=hits_codes,
        prefix_purity=None if labels is None else quality.prefix_purity(own[known], labels),
        largest_category=None if labels is None else float(np.unique(labels, return_counts=True)[1].max() / len(labels)),
    )  # fmt: skip


COLUMNS: dict[str, Callable[[Quality], Any]] = {
    "codes": lambda q: "x".join(map(str, q.sizes)),
    "collisions before": lambda q: q.collision_rate_before,
    "largest group": lambda q: q.largest_group,
    "in use": lambda q: min(q.utilisation),
    "evenness": lambda q: min(q.entropy),
    "Gini": lambda q: q.gini_used,
    "lost": lambda q: q.reconstruction_error,
    "neighbours": lambda q: q.neighbourhood_recall,
    "rank corr.": lambda q: q.rank_correlation_vectors,
    "behaviour": lambda q: q.rank_correlation_behaviour,
    "lift": lambda q: q.behaviour_lift,
    "hit rate kept": _kept,
    "code hit rate": lambda q: q.code_hit_rate,
    "purity": lambda q: q.prefix_purity,
}


def comparison(rows: Sequence[tuple[str, Quality, dict[str, Any]]]) -> str:
    """A Markdown table: one line per (name, quality, further columns)."""
    more = list(rows[0][2]) if rows else []
    lines = [["recipe", *COLUMNS, *more]]
    for name, found, extra in rows:
        lines.append([name, *(_cell(value(found)) for value in COLUMNS.values()), *(_cell(extra[column]) for column in more)])
    widths = [max(len(line[place]) for line in lines) for place in range(len(lines[0]))]
    lines.insert(1, ["-" * width for width in widths])
    return "\n".join("| " + " | ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)) + " |" for line in lines)


def _cell(value: Any) -> str:
    return "-" if value is None else f"{value:.3f}" if isinstance(value, float) else str(value)
