"""The report of an evaluation, or of a comparison, as one HTML page with plots, self-contained.

In: a `Report`, or rows of a comparison. Out: HTML as text. Whatever the catalogue holds is escaped.
"""

from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path

from jinja2 import Environment
from matplotlib.axes import Axes

from genrec.evaluation.compare import Compared
from genrec.evaluation.lists import ListQuality
from genrec.evaluation.probes import by_question
from genrec.evaluation.report import Report
from genrec.evaluation.slices import SliceRow, largest_gaps
from genrec.plots import COLOUR, INK, OTHER, plot

SHOWN = ("recall", "ndcg", "mrr")  # hit rate and MAP are the same numbers where a question has one answer
# What each number of a list says, in the words of someone who reads it for the first time.
LISTS = {
    "coverage": "share of the catalogue that anybody is shown",
    "gini_of_exposure": "0: all items are shown alike often, 1: one item takes every place",
    "novelty": "bits: how little training knew the items; one more is half as known",
    "intra_list_diversity": "0: the items of a list are alike, 1: they have nothing in common",
    "average_popularity": "training events of a recommended item",
    "popularity_bias": "how much further up the popularity order lists are than histories, -1 to 1",
    "calibration": "0: lists have the categories of the history in the same shares",
}
# The same for the gaps between groups; %s: categories, or brands and sellers.
GAPS = {
    "from_catalogue": "share of places that would have to change hands until %s have what their number of items gives them",
    "from_relevance": "share of places that would have to change hands until %s have what the answers give them",
    "largest_gap": "NDCG where the answer is of the best served of %s, less that of the worst; of 30 questions or more",
}


def html(report: Report, title: str) -> str:
    """The page of an evaluation. `title`: such as the bundle's folder."""
    return _render(
        "evaluation.html.jinja", title=title, report=report, compared=report.compared, lists=_lists(report.lists),
        sure=_sure(report), results=plot(lambda ax: _results(ax, report.compared), 6.4, 0.6 + 0.36 * len(report.compared)),
        trade=plot(lambda ax: _trade(ax, report.compared), 6.4, 3.2), slices=_slices(report.slices),
        probes=by_question(report.probes), gaps=[largest_gaps(rows) for rows in report.slices.values()],
        shown=[name for name in report.evaluation.results[0].metrics[report.protocol] if name.split("@")[0] in SHOWN],
    )  # fmt: skip


def write_report(report: Report, folder: Path, title: str) -> Path:
    """Write `evaluation.json`, `questions.parquet` and `evaluation.html`, whose path is returned."""
    report.evaluation.save(folder, report.to_dict())
    page = folder / "evaluation.html"
    page.write_text(html(report, title), encoding="utf-8")
    return page


def comparison_html(rows: Sequence[Compared], metric: str) -> str:
    """The page of `genrec compare`."""
    return _render(
        "comparison.html.jinja", compared=rows, metric=metric, trade=plot(lambda ax: _trade(ax, rows), 6.4, 4),
        results=plot(lambda ax: _results(ax, rows), 6.4, 0.6 + 0.36 * len(rows)),
    )  # fmt: skip


def _render(name: str, **values: object) -> str:
    environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    folder = files("genrec.evaluation")
    style = (folder / "style.css").read_text("utf-8")
    macros = (folder / "macros.html.jinja").read_text("utf-8")
    return environment.from_string(macros + (folder / name).read_text("utf-8")).render(style=style, **values)


def _sure(report: Report) -> str:
    """The main finding in one sentence."""
    model, rows = report.evaluation.results[0].name, report.compared
    others = [row for row in rows if row.name != model]
    if not others:
        return f"{model} was measured alone."
    best = others[0]
    # Differences are to the model, so the words turn round.
    word = {"better": "worse than", "worse": "better than", "no difference shown": "not told apart from"}[best.verdict]
    return f"{model} is {word} the best other ranker, {best.name} (paired test over users, corrected for {len(others)} tests)."


def _results(ax: Axes, rows: Sequence[Compared]) -> None:
    names = [row.name for row in rows]
    means = [row.estimate.mean for row in rows]
    away = [[row.estimate.mean - row.estimate.low for row in rows], [row.estimate.high - row.estimate.mean for row in rows]]
    colours = [OTHER if row.difference is None else COLOUR for row in rows]
    ax.barh(names, means, xerr=away, color=colours, ecolor=INK, capsize=2, height=0.6)
    ax.invert_yaxis()
    ax.set(title="Quality with 95 % intervals over users")


def _trade(ax: Axes, rows: Sequence[Compared]) -> None:
    costs = [max(row.milliseconds, 1e-3) for row in rows]
    for row, cost in zip(rows, costs, strict=True):
        ax.scatter(cost, row.estimate.mean, color=COLOUR if row.best_trade else INK, s=24)
        ax.annotate(row.name, (cost, row.estimate.mean), xytext=(4, 4), textcoords="offset points", fontsize=7, color=INK)
    front = sorted((cost, row.estimate.mean) for row, cost in zip(rows, costs, strict=True) if row.best_trade)
    ax.step(*zip(*front, strict=True), where="post", color=COLOUR, linewidth=1)
    ax.set(xscale="log", xlabel="milliseconds per question", ylabel="quality", title="Quality against cost")
    ax.xaxis.set_major_formatter("{x:g}")
    ax.tick_params(which="minor", labelbottom=False)
    ax.margins(x=0.25, y=0.15)


def _slices(slices: dict[str, list[SliceRow]]) -> list[tuple[str, list[tuple[str, int, list[SliceRow]]]]]:
    """By group: (name of the slice, questions, a row per ranker)."""
    groups: dict[str, list[tuple[str, int, list[SliceRow]]]] = {}
    for rows in zip(*slices.values(), strict=True):
        groups.setdefault(rows[0].group, []).append((rows[0].name, rows[0].questions, list(rows)))
    return list(groups.items())


def _lists(found: dict[str, ListQuality]) -> list[tuple[str, str, list[str]]]:
    """(name, what it says, one text per ranker), for those that are known."""
    rows = [(name.replace("_", " "), says, [getattr(one, name) for one in found.values()]) for name, says in LISTS.items()]
    for groups, whose in (("category", "categories"), ("provider", "brands and sellers")):
        gaps = [getattr(one, f"{groups}_gaps") for one in found.values()]
        for name, says in GAPS.items():
            values = [None if one is None else getattr(one, name) for one in gaps]
            rows.append((f"{groups}: {name.replace('_', ' ')}", says % whose, values))
    return [
        (name, says, ["-" if value is None else f"{value:.3f}" for value in values])
        for name, says, values in rows
        if any(value is not None for value in values)
    ]
