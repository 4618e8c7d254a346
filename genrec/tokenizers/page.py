"""The quality report as one HTML page with plots, self-contained.

In: a `Quality`, the code table, what the codes mean. Out: HTML as text. Whatever the catalogue holds is escaped.
"""

import io
from collections.abc import Callable
from dataclasses import asdict
from importlib.resources import files
from typing import Any

import numpy as np
from jinja2 import Environment
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from genrec.codes import CodeTable
from genrec.tokenizers import quality
from genrec.tokenizers.meaning import Meaning
from genrec.tokenizers.report import Quality

INK = "#7a8699"  # reads on light and on dark
COLOUR = "#3b82c4"


def html(found: Quality, table: CodeTable, meaning: list[Meaning], title: str) -> str:
    """The page. `title`: of the page, such as the folder's name."""
    template = Environment(autoescape=True).from_string((files("genrec.tokenizers") / "page.html.jinja").read_text("utf-8"))
    return template.render(
        title=title, quality=found, table=table, meanings=meaning, numbers=_numbers(found),
        usage=_plot(lambda ax: _usage(ax, found, table)), groups=_plot(lambda ax: _groups(ax, table)),
        hits=_plot(lambda ax: _hits(ax, found)) if found.embedding_hit_rate is not None else "",
    )  # fmt: skip


def _numbers(found: Quality) -> dict[str, str]:
    def text(value: Any) -> str:
        if isinstance(value, list):
            return ", ".join(map(text, value))
        return "-" if value is None else f"{value:.4f}" if isinstance(value, float) else str(value)

    return {name: text(value) for name, value in asdict(found).items()}


def _plot(draw: Callable[[Axes], None]) -> str:
    """An SVG of one plot."""
    figure = Figure(figsize=(4.6, 2.9), layout="constrained")
    figure.patch.set_alpha(0)
    ax = figure.add_subplot()
    ax.patch.set_alpha(0)
    for spine in ax.spines.values():
        spine.set_visible(False)
    ax.tick_params(colors=INK, labelsize=8)
    draw(ax)
    for text in (ax.title, ax.xaxis.label, ax.yaxis.label):
        text.set(color=INK, fontsize=9)
    if legend := ax.get_legend():
        legend.get_frame().set_alpha(0)
        for text in legend.get_texts():
            text.set(color=INK, fontsize=8)
    out = io.StringIO()
    figure.savefig(out, format="svg", metadata={"Date": None, "Creator": None})
    svg = out.getvalue()
    return svg[svg.index("<svg") :]


def _usage(ax: Axes, found: Quality, table: CodeTable) -> None:
    for level, size in enumerate(found.sizes[: len(found.utilisation)]):
        counts = np.sort(np.bincount(table.codes[:, level], minlength=size))[::-1]
        ax.plot(np.linspace(0, 100, len(counts)), np.maximum(counts, 0.5), label=f"level {level + 1}", linewidth=1.4)
    ax.set(yscale="log", xlabel="codes, commonest first (%)", ylabel="items of a code", title="How evenly codes are used")
    ax.legend()


def _groups(ax: Axes, table: CodeTable) -> None:
    sizes, groups = np.unique(quality.tuple_counts(table.codes), return_counts=True)
    ax.bar([str(size) for size in sizes[:12]], groups[:12], color=COLOUR)
    more = f" ({len(sizes) - 12} larger sizes not shown)" if len(sizes) > 12 else ""
    ax.set(xlabel=f"items with the same codes{more}", ylabel="code tuples", title="Items that share all codes")


def _hits(ax: Axes, found: Quality) -> None:
    bars = {"vectors": found.embedding_hit_rate, "decoded": found.decoded_hit_rate, "codes": found.code_hit_rate}
    ax.barh(list(bars), [value or 0.0 for value in bars.values()], color=COLOUR)
    ax.invert_yaxis()
    ax.set(xlabel="hit rate @20, neighbours of the history", title="What is left of the signal")
