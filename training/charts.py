"""Small charts as inline SVG: reliability over score histogram, loss curves, dots with intervals.

Knows geometry and numbers. Does not know models, or colours: those are classes of the card's style sheet.
Equal numbers give equal text, to the byte.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil, floor, log, log10

import numpy as np
from markupsafe import Markup, escape

from training.evaluation import Bin, Curve, Histogram


@dataclass(frozen=True)
class Axis:
    """Maps [low, high] to the pixels from `start` to `end`, evenly or in the logarithm."""

    low: float
    high: float
    start: float
    end: float
    logarithmic: bool = False

    def at(self, value: float) -> float:
        """The pixel of a value; values outside are drawn at the edge."""
        value = min(max(value, self.low), self.high)
        if self.logarithmic:
            share = log(value / self.low) / log(self.high / self.low)
        else:
            share = (value - self.low) / (self.high - self.low)
        return self.start + share * (self.end - self.start)

    def ticks(self, at_most: int = 6) -> list[float]:
        """Round values inside, at most so many."""
        decades = log10(self.high / self.low) if self.logarithmic else 0.0
        if decades > 0.8:
            exponents = range(floor(log10(self.low)), ceil(log10(self.high)) + 1)
            for multiples, every in (((1, 2, 5), 1), ((1, 3), 1), ((1,), 1), ((1,), 2), ((1,), 3)):
                ticks = [multiple * 10.0**k for k in exponents if k % every == 0 for multiple in multiples]
                ticks = [tick for tick in ticks if self.low <= tick * (1 + 1e-9) and tick <= self.high * (1 + 1e-9)]
                if 2 <= len(ticks) <= at_most:
                    return ticks
        size = 10.0 ** floor(log10((self.high - self.low) / at_most))
        for step in (multiple * size for multiple in (1, 2, 5, 10, 20)):
            first, last = ceil(self.low / step - 1e-9), floor(self.high / step + 1e-9)
            if last - first < at_most:
                break
        return [k * step for k in range(first, last + 1)]


def percent(share: float, digits: int = 3) -> str:
    """A share as a percentage of so many significant digits.

    >>> percent(0.0012), percent(0.2), percent(0)
    ('0.120 %', '20.0 %', '0 %')
    """
    return f"{significant(share * 100, digits)} %"


def significant(number: float, digits: int = 4) -> str:
    """A number of so many significant digits, without an exponent.

    >>> significant(0.000012345), significant(1234567.0), significant(0.5)
    ('0.00001234', '1234567', '0.5000')
    """
    if number == 0 or digits < 1:
        return "0"
    return f"{number:.{max(0, digits - 1 - floor(log10(abs(number))))}f}"


def _plain(number: float) -> str:
    """A tick's label: a round number without the zeros it does not need."""
    text = significant(number, 4)
    return text.rstrip("0").rstrip(".") if "." in text else text


def reliability_chart(curves: Sequence[Curve], *, key: str, title: str) -> Markup:
    """Observed against predicted, above the spread of the scores; both share the horizontal axis.

    The first curve is drawn with intervals and histogram, further ones (the truth) as diamonds.
    """
    bins = [point for curve in curves for point in curve.bins]
    low, high = _span([value for point in bins for value in (point.predicted, point.observed)])
    logarithmic = high / low > 4
    if not logarithmic:
        low, high = max(0.0, low - (high - low) * 0.08), high + (high - low) * 0.08
    x, y = Axis(low, high, 66, 296, logarithmic), Axis(low, high, 230, 10, logarithmic)
    body = [*_grid(x, y, 10, 230, labels=False), *_vertical_labels(y), *_base(x, 300)]
    body.append(f'<line class="ideal" {_ends(x.at(low), y.at(low), x.at(high), y.at(high))}/>')
    for index, curve in enumerate(curves):
        body += _points(curve.bins, x, y) if index == 0 else _diamonds(curve.bins, x, y)
    body += _spread(curves[0].histogram, x, 246, 300)
    body.append('<text class="axis" x="181" y="340" text-anchor="middle">predicted</text>')
    body.append('<text class="axis" transform="translate(10 120) rotate(-90)" text-anchor="middle">observed</text>')
    described = f"{len(curves[0].bins)} bins of equal mass; the table below gives their values."
    return _svg(304, 346, key, title, described, body)


def loss_chart(
    steps: Sequence[int], losses: Mapping[str, Sequence[float]], chosen: int | None, *, title: str
) -> Markup:
    """One line per named loss over steps, and a mark at the chosen step."""
    values = [value for line in losses.values() for value in line]
    low, high = min(values), max(values)
    margin = (high - low or abs(high) or 1.0) * 0.06
    x, y = Axis(0, max(steps) or 1, 66, 966), Axis(low - margin, high + margin, 250, 10)
    body = [*_grid(x, y, 10, 250, labels=True), *_base(x, 250, at_most=9)]
    ticks = y.ticks()
    places = max(len(_plain(tick).partition(".")[2]) for tick in ticks)
    body += [
        f'<text class="tick" x="58" y="{_px(y.at(tick) + 4)}" text-anchor="end">{tick:.{places}f}</text>'
        for tick in ticks
    ]
    if chosen is not None:
        at = x.at(chosen)
        side = ("end", -6) if at > 500 else ("start", 6)
        body.append(f'<line class="chosen" {_ends(at, 10, at, 250)}/>')
        body.append(
            f'<text class="note" x="{_px(at + side[1])}" y="20" text-anchor="{side[0]}">chosen: step {chosen:,}</text>'
        )
    for index, line in enumerate(losses.values()):
        points = [(x.at(step), y.at(value)) for step, value in zip(steps, line, strict=True)]
        body.append(f'<polyline class="line s{index}" points="{" ".join(f"{_px(a)},{_px(b)}" for a, b in points)}"/>')
        body += [f'<circle class="dot s{index}" cx="{_px(a)}" cy="{_px(b)}" r="2.5"/>' for a, b in points]
    body.append('<text class="axis" x="516" y="292" text-anchor="middle">training step</text>')
    body.append('<text class="axis" transform="translate(10 130) rotate(-90)" text-anchor="middle">loss</text>')
    return _svg(980, 298, "loss", title, f"{len(steps)} evaluations of {' and '.join(losses)}.", body)


def ratio_axis(ratios: Sequence[float | None]) -> Axis:
    """An axis in the logarithm, with 1 in the middle, that shows every ratio up to tenfold."""
    known = [value for value in ratios if value]
    reach = max([1.25, *(max(value, 1 / value) for value in known)])
    reach = next(limit for limit in (1.25, 1.5, 2.0, 3.0, 5.0, 10.0) if reach <= limit or limit == 10.0)
    return Axis(1 / reach, reach, 8, 192, True)


def ratio_scale(axis: Axis) -> Markup:
    """The axis itself, for the head of a column of `ratio_dot`s."""
    body = [
        f'<text class="tick" x="{_px(axis.at(tick))}" y="12" text-anchor="{anchor}">{label}</text>'
        for tick, anchor, label in (
            (axis.low, "start", significant(axis.low, 2)),
            (1.0, "middle", "1"),
            (axis.high, "end", _plain(axis.high)),
        )
    ]
    return Markup(f'<svg class="cell" viewBox="0 0 200 16" aria-hidden="true">{"".join(body)}</svg>')  # noqa: S704


def ratio_dot(axis: Axis, ratio: float | None, low: float | None, high: float | None) -> Markup:
    """A ratio with its interval on `axis`; decoration of a table row that states the number."""
    body = [f'<line class="ideal" {_ends(axis.at(1), 0, axis.at(1), 20)}/>']
    if ratio is not None:
        low, high = low or axis.low / 2, high or axis.high * 2
        body.append(f'<line class="whisker s0" {_ends(axis.at(low), 10, axis.at(high), 10)}/>')
        if low < axis.low:
            body.append(f'<path class="line s0" d="M{_px(axis.start + 2)} 6l-5 4l5 4"/>')
        if high > axis.high:
            body.append(f'<path class="line s0" d="M{_px(axis.end - 2)} 6l5 4l-5 4"/>')
        if axis.low <= ratio <= axis.high:
            body.append(f'<circle class="dot s0" cx="{_px(axis.at(ratio))}" cy="10" r="3.5"/>')
    return Markup(f'<svg class="cell" viewBox="0 0 200 20" aria-hidden="true">{"".join(body)}</svg>')  # noqa: S704


def _svg(width: int, height: int, key: str, title: str, described: str, body: Sequence[str]) -> Markup:
    """`key` makes the ids of title and description unique in the page. The body holds numbers and our own words."""
    return Markup(  # noqa: S704
        f'<svg class="chart" viewBox="0 0 {width} {height}" role="img" aria-labelledby="{key}-t {key}-d">'
        f'<title id="{key}-t">{escape(title)}</title><desc id="{key}-d">{escape(described)}</desc>'
        f"{''.join(body)}</svg>"
    )


def _grid(x: Axis, y: Axis, top: float, bottom: float, *, labels: bool) -> list[str]:
    lines = [f'<line class="grid" {_ends(x.start, y.at(tick), x.end, y.at(tick))}/>' for tick in y.ticks()]
    if not labels:
        lines += [f'<line class="grid" {_ends(x.at(tick), top, x.at(tick), bottom)}/>' for tick in x.ticks(5)]
    return lines


def _vertical_labels(y: Axis) -> list[str]:
    return [
        f'<text class="tick" x="60" y="{_px(y.at(tick) + 4)}" text-anchor="end">{_plain(tick * 100)} %</text>'
        for tick in y.ticks()
    ]


def _base(x: Axis, bottom: float, *, at_most: int = 0) -> list[str]:
    """The horizontal axis with its labels: counts if `at_most` is given, shares otherwise."""
    parts = [f'<line class="base" {_ends(x.start, bottom, x.end, bottom)}/>']
    for tick in x.ticks(at_most or 5):
        label = f"{tick:,.0f}" if at_most else f"{_plain(tick * 100)} %"
        parts.append(f'<line class="base" {_ends(x.at(tick), bottom, x.at(tick), bottom + 4)}/>')
        parts.append(
            f'<text class="tick" x="{_px(x.at(tick))}" y="{_px(bottom + 18)}" text-anchor="middle">{label}</text>'
        )
    return parts


def _points(bins: Sequence[Bin], x: Axis, y: Axis) -> list[str]:
    parts = []
    shown = [(x.at(point.predicted), y.at(point.observed)) for point in bins]
    parts.append(f'<polyline class="line s0" points="{" ".join(f"{_px(a)},{_px(b)}" for a, b in shown)}"/>')
    for point, (a, b) in zip(bins, shown, strict=True):
        told = (
            f"predicted {percent(point.predicted)}, observed {percent(point.observed)} "
            f"({percent(point.low)} to {percent(point.high)}), {point.rows:,} rows"
        )
        empty = " hollow" if point.observed < y.low else ""
        parts.append(f'<line class="whisker s0" {_ends(a, y.at(point.low), a, y.at(point.high))}/>')
        parts.append(
            f'<circle class="dot s0{empty}" cx="{_px(a)}" cy="{_px(b)}" r="3.5"><title>{told}</title></circle>'
        )
    return parts


def _diamonds(bins: Sequence[Bin], x: Axis, y: Axis) -> list[str]:
    parts = []
    for point in bins:
        a, b = x.at(point.predicted), y.at(point.observed)
        told = f"predicted {percent(point.predicted)}, true {percent(point.observed)}"
        shape = f"M{_px(a)} {_px(b - 4.5)}l4.5 4.5l-4.5 4.5l-4.5 -4.5z"
        parts.append(f'<path class="diamond s2" d="{shape}"><title>{told}</title></path>')
    return parts


def _spread(histogram: Histogram, x: Axis, top: float, bottom: float) -> list[str]:
    """Negatives as an area, positives as a line, each scaled to its own sum; what lies off the axis is left out."""
    tallest = max([*histogram.negatives, *histogram.positives, 1e-12])
    edges = np.asarray(histogram.edges)
    parts = []
    for name, shares in (("area", histogram.negatives), ("line s1", histogram.positives)):
        points: list[str] = []
        for share, left, right in zip(shares, edges[:-1], edges[1:], strict=True):
            if left >= x.low and right <= x.high:
                height = _px(bottom - share / tallest * (bottom - top))
                points += [f"{_px(x.at(float(left)))},{height}", f"{_px(x.at(float(right)))},{height}"]
        if points and any(shares):
            first, last = points[0].split(",")[0], points[-1].split(",")[0]
            closed = [f"{first},{_px(bottom)}", *points, f"{last},{_px(bottom)}"]
            parts.append(f'<polyline class="{name}" points="{" ".join(closed)}"/>')
    return parts


def _span(values: Sequence[float]) -> tuple[float, float]:
    """The range of the positive values, a little widened; a range around them if there is only one."""
    positive = [value for value in values if value > 0] or [0.01]
    low, high = min(positive), max(positive)
    return low / 1.25, min(high * 1.25, 1.0)


def _ends(x1: float, y1: float, x2: float, y2: float) -> str:
    return f'x1="{_px(x1)}" y1="{_px(y1)}" x2="{_px(x2)}" y2="{_px(y2)}"'


def _px(pixel: float) -> str:
    return f"{pixel:.1f}".removesuffix(".0")
