"""
The last thirty days in one picture: completeness, latency, and what was missing and what became of it.

Input: the figures of days as storage/scorecard_rows.py reads them; output: a PNG as bytes, which the asset `scorecard` shows
in its metadata. matplotlib is imported when a picture is drawn: it takes longer than all definitions together.
"""

import io
from collections.abc import Mapping, Sequence
from datetime import date, timedelta
from typing import TYPE_CHECKING

from ..market.scorecard import Figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes

DAYS = 30
SHOWN = (
    "completeness",
    "reconcile_rate",
    "lag_p50_seconds",
    "lag_p99_seconds",
    *(f"holes_{what}" for what in ("repaired", "proven_empty", "lost", "open")),
    *(f"breaks_{what}" for what in ("repaired", "lost", "open")),
)
"""The metrics that are drawn."""

INK, FAINT, GRID = "#1f2328", "#656d76", "#e4e8ec"
GREEN, BLUE, GREY, RED, AMBER = "#2ea043", "#4a8fd6", "#a5adb6", "#cf222e", "#d4900a"

Days = Mapping[date, Sequence[Figure]]


def picture(found: Days, *, last: date, days: int = DAYS) -> bytes:
    """The picture of the days up to `last`; a day of which a figure is not known stays empty there."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure as Canvas
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    span = [last - timedelta(days=n) for n in reversed(range(days))]
    canvas = Canvas(
        figsize=(8.8, 6.6), dpi=100, facecolor="white", layout=ConstrainedLayoutEngine(hspace=0.06, h_pad=0.08)
    )
    FigureCanvasAgg(canvas)
    complete, lag, holes = canvas.subplots(3, 1, sharex=True, height_ratios=(1.1, 1.0, 1.0))
    _draw_completeness(complete, found, span)
    _draw_lag(lag, found, span)
    _draw_holes(holes, found, span)
    _label_days(holes, span)
    written = io.BytesIO()
    canvas.savefig(written, format="png")
    return written.getvalue()


def values(found: Days, span: Sequence[date], metric: str) -> list[float]:
    """A metric of all markets over the days; not a number where it is not known."""
    known = {
        day: one.value
        for day in span
        for one in found.get(day, ())
        if one.metric == metric and one.market is None and one.value is not None
    }
    return [known.get(day, float("nan")) for day in span]


def _draw_completeness(axes: "Axes", found: Days, span: Sequence[date]) -> None:
    shares = [100 * value for value in values(found, span, "completeness")]
    agreeing = [100 * value for value in values(found, span, "reconcile_rate")]
    at = range(len(span))
    _dress(axes, "Completeness", "%")
    axes.plot(
        at, shares, color=GREEN, linewidth=2, marker="o", markersize=4, label="minutes of history that are proven"
    )
    axes.plot(
        at,
        agreeing,
        color=BLUE,
        linewidth=1.6,
        marker="o",
        markersize=3,
        label="live minutes that are the exchange's own",
        alpha=0.9,
    )
    known = [value for value in (*shares, *agreeing) if value == value]
    least = min([99.0, *known])
    axes.set_ylim(max(0.0, least - 0.12 * (100 - least)), 100 + 0.08 * (100 - least))
    axes.axhline(100, color=GRID, linewidth=1)
    _legend(axes, known=bool(known))


def _draw_lag(axes: "Axes", found: Days, span: Sequence[date]) -> None:
    half, most = values(found, span, "lag_p50_seconds"), values(found, span, "lag_p99_seconds")
    at = range(len(span))
    _dress(axes, "From a trade's arrival to its row", "seconds")
    axes.plot(at, most, color=AMBER, linewidth=2, marker="o", markersize=4, label="99 % within")
    axes.plot(at, half, color=BLUE, linewidth=2, marker="o", markersize=4, label="half within")
    known = [value for value in (*half, *most) if value == value]
    axes.set_ylim(0, 1.25 * max(known, default=1.0))
    _legend(axes, known=bool(known))


def _draw_holes(axes: "Axes", found: Days, span: Sequence[date]) -> None:
    from matplotlib.ticker import MaxNLocator

    _dress(axes, "Holes and breaks", "found")
    bottom = [0.0] * len(span)
    for outcome, colour, word in (
        ("repaired", GREEN, "repaired"),
        ("proven_empty", BLUE, "proven empty"),
        ("lost", GREY, "lost"),
        ("open", RED, "open"),
    ):
        heights = [0.0] * len(span)
        for of in ("holes", "breaks"):
            told = values(found, span, f"{of}_{outcome}")
            heights = [sum_ + (value if value == value else 0.0) for sum_, value in zip(heights, told, strict=True)]
        axes.bar(range(len(span)), heights, bottom=bottom, color=colour, width=0.7, label=word)
        bottom = [sum_ + height for sum_, height in zip(bottom, heights, strict=True)]
    axes.set_ylim(0, 1.2 * max(max(bottom), 1.0))
    axes.yaxis.set_major_locator(MaxNLocator(nbins=5, integer=True))
    _legend(axes, known=any(day in found for day in span))


def _dress(axes: "Axes", title: str, unit: str) -> None:
    axes.set_title(title, loc="left", fontsize=10.5, color=INK, fontweight="bold", pad=8)
    axes.set_ylabel(unit, fontsize=9, color=FAINT)
    axes.grid(axis="y", color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(colors=FAINT, labelsize=9, length=0)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(GRID)


def _legend(axes: "Axes", *, known: bool) -> None:
    if known:
        axes.legend(  # beside the title, over no day
            loc="lower right",
            bbox_to_anchor=(1.0, 1.0),
            borderaxespad=0.2,
            fontsize=8.5,
            labelcolor=INK,
            frameon=False,
            ncols=4,
            handlelength=1.2,
            columnspacing=1.4,
        )
    else:
        axes.text(
            0.5, 0.5, "not known yet", transform=axes.transAxes, ha="center", va="center", color=FAINT, fontsize=10
        )


def _label_days(axes: "Axes", span: Sequence[date]) -> None:
    every = max(1, len(span) // 6)
    shown = [n for n in range(len(span)) if (len(span) - 1 - n) % every == 0]
    axes.set_xticks(shown, [f"{span[n]:%d %b}" for n in shown])
    axes.set_xlim(-0.6, len(span) - 0.4)
