"""Plots inside HTML pages: one SVG each, readable on light and on dark.

In: a function that draws on a matplotlib `Axes`. Out: SVG as text, the same for the same numbers.
"""

import io
from collections.abc import Callable

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

INK = "#7a8699"  # reads on light and on dark
COLOUR, OTHER = "#3b82c4", "#c76a00"


def plot(draw: Callable[[Axes], None], width: float = 4.6, height: float = 2.9) -> str:
    """An SVG of one plot, inches."""
    figure = Figure(figsize=(width, height), layout="constrained")
    figure.patch.set_alpha(0)
    ax = figure.add_subplot()
    ax.patch.set_alpha(0)
    for spine in ax.spines.values():
        spine.set_visible(False)
    ax.tick_params(which="both", colors=INK, labelsize=8)
    draw(ax)
    for text in (ax.title, ax.xaxis.label, ax.yaxis.label):
        text.set(color=INK, fontsize=9)
    if legend := ax.get_legend():
        legend.get_frame().set_alpha(0)
        for text in legend.get_texts():
            text.set(color=INK, fontsize=8)
    out = io.StringIO()
    with rc_context({"svg.hashsalt": "genrec"}):  # else every run would have other ids
        figure.savefig(out, format="svg", metadata={"Date": None, "Creator": None})
    svg = out.getvalue()
    return svg[svg.index("<svg") :]
