"""The quality report as one HTML page with plots, self-contained.

In: a `Quality`, the code table, what the codes mean. Out: HTML as text. Whatever the catalogue holds is escaped.
"""

from dataclasses import asdict
from importlib.resources import files
from typing import Any

import numpy as np
from jinja2 import Environment
from matplotlib.axes import Axes

from genrec.codes import CodeTable
from genrec.plots import COLOUR, plot
from genrec.tokenizers import quality
from genrec.tokenizers.meaning import Meaning
from genrec.tokenizers.report import Quality


def html(found: Quality, table: CodeTable, meaning: list[Meaning], title: str) -> str:
    """The page. `title`: of the page, such as the folder's name."""
    template = Environment(autoescape=True).from_string((files("genrec.tokenizers") / "page.html.jinja").read_text("utf-8"))
    return template.render(
        title=title, quality=found, table=table, meanings=meaning, numbers=_numbers(found),
        usage=plot(lambda ax: _usage(ax, found, table)), groups=plot(lambda ax: _groups(ax, table)),
        hits=plot(lambda ax: _hits(ax, found)) if found.embedding_hit_rate is not None else "",
    )  # fmt: skip


def _numbers(found: Quality) -> dict[str, str]:
    def text(value: Any) -> str:
        if isinstance(value, list):
            return ", ".join(map(text, value))
        return "-" if value is None else f"{value:.4f}" if isinstance(value, float) else str(value)

    return {name: text(value) for name, value in asdict(found).items()}


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
