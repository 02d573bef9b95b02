"""SVG charts: bars, stacked bars and lines, each with a title and a description for screen readers.

Text is placed outside the SVG, so that it keeps its size on a phone. Colours come from the stylesheet by
class, since the content security policy forbids inline styles.
"""

from collections.abc import Iterator, Sequence

import msgspec
from markupsafe import Markup

WIDTH = 600.0
GAP = 0.22
FEW = 6
RECT = Markup('<rect class="{}" x="{}" y="{}" width="{}" height="{}"/>')


class Bar(msgspec.Struct, frozen=True):
    """One bar: its label, its value, and a second value stacked on top."""

    label: str
    value: float
    more: float = 0.0
    tone: str = ""
    note: str = ""

    @property
    def total(self) -> float:
        """The sum of both values."""
        return self.value + self.more


def bar_chart(
    bars: Sequence[Bar],
    *,
    title: str,
    unit: str = "",
    limit: float | None = None,
    limit_label: str = "limit",
    height: int = 120,
) -> Markup:
    """Draw bars side by side, and a line across them at `limit`."""
    top = max([bar.total for bar in bars] + [limit or 0.0]) or 1.0
    step = WIDTH / max(len(bars), 1)
    shapes = list[Markup]()
    for number, bar in enumerate(bars):
        shapes += _column(bar, number * step + step * GAP / 2, step * (1 - GAP), top, height, unit)
    if limit is not None:
        y = height - height * limit / top
        shapes.append(
            Markup('<line class="limit" x1="0" x2="{}" y1="{}" y2="{}"/>').format(WIDTH, _short(y), _short(y))
        )
    summary = _summary(bars, unit)
    if limit is not None:
        summary += f" The {limit_label} is {limit:,.0f}."
    return _drawing(title, summary, shapes, height, top, [bar.label for bar in bars], unit)


def line_chart(points: Sequence[Bar], *, title: str, unit: str = "", height: int = 120) -> Markup:
    """Draw values as a line above a filled area."""
    top = max([point.value for point in points] + [1.0])
    points = [*points, *points] if len(points) == 1 else points
    step = WIDTH / max(len(points) - 1, 1)
    places = [
        f"{_short(number * step)},{_short(height - height * point.value / top)}"
        for number, point in enumerate(points)
    ]
    shapes = list[Markup]()
    if places:
        path = " L".join(places)
        shapes = [
            Markup('<path class="ground" d="M0,{} L{} L{},{}Z"/>').format(
                height, path, _short(WIDTH), height
            ),
            Markup('<path class="line" d="M{}"/>').format(path),
        ]
    return _drawing(
        title, _summary(points, unit), shapes, height, top, [point.label for point in points], unit
    )


def gauge(part: float, whole: float | None, *, title: str) -> Markup:
    """Draw how much of a whole is used."""
    share = min(1.0, part / whole) if whole else 0.0
    tone = "bad" if share >= 0.98 else "warn" if share >= 0.8 else ""
    body = Markup(
        '<rect class="track" width="{w}" height="10"/><rect class="bar {t}" width="{s}" height="10"/>'
    )
    summary = f"{part:,.0f} of {whole:,.0f}." if whole else f"{part:,.0f}; no limit is known."
    shapes = [body.format(w=WIDTH, t=tone, s=_short(WIDTH * share))]
    return _svg(title, summary, shapes, 10, "gauge")


def _column(bar: Bar, x: float, width: float, top: float, height: int, unit: str) -> Iterator[Markup]:
    lower, upper = height * bar.value / top, height * bar.more / top
    yield Markup("<g><title>{}</title>").format(bar.note or f"{bar.label}: {bar.total:,.0f}{_unit(unit)}")
    yield Markup('<rect class="reach" x="{}" y="0" width="{}" height="{}"/>').format(
        _short(x), _short(width), height
    )
    if bar.value:
        lower = max(lower, 1.0)
        yield RECT.format(f"bar {bar.tone}", _short(x), _short(height - lower), _short(width), _short(lower))
    if bar.more:
        yield RECT.format(
            "bar second", _short(x), _short(height - lower - upper), _short(width), _short(max(upper, 1.0))
        )
    yield Markup("</g>")


def _drawing(
    title: str, summary: str, shapes: list[Markup], height: int, top: float, labels: list[str], unit: str
) -> Markup:
    """Add the text around an SVG: the largest value above, the labels (three of many) below."""
    is_many = len(labels) > FEW
    shown = [labels[0], labels[len(labels) // 2], labels[-1]] if is_many else labels
    return Markup(
        '<div class="chart"><div class="top" aria-hidden="true">{}</div>{}'
        '<div class="axis{}" aria-hidden="true">{}</div></div>'
    ).format(
        f"{top:,.0f}{_unit(unit)}" if top >= 10 else f"{_short(top)}{_unit(unit)}",
        _svg(title, summary, shapes, height, "plot"),
        "" if is_many else " each",
        Markup().join(Markup("<span>{}</span>").format(label) for label in shown),
    )


def _svg(title: str, summary: str, shapes: list[Markup], height: int, name: str) -> Markup:
    key = "c-" + "".join(letter if letter.isalnum() else "-" for letter in title.lower())
    return Markup(
        '<svg class="{n}" role="img" viewBox="0 0 {w} {h}" preserveAspectRatio="none" '
        'aria-labelledby="{k}-t {k}-d"><title id="{k}-t">{t}</title><desc id="{k}-d">{d}</desc>{s}</svg>'
    ).format(n=name, w=int(WIDTH), h=height, k=key, t=title, d=summary, s=Markup().join(shapes))


def _summary(bars: Sequence[Bar], unit: str) -> str:
    """Describe a chart for screen readers."""
    if not bars or not any(bar.total for bar in bars):
        return "Nothing yet."
    highest = max(bars, key=lambda bar: bar.total)
    return (
        f"{len(bars)} values from {bars[0].label} to {bars[-1].label}. The highest is "
        f"{highest.total:,.0f}{_unit(unit)}, {highest.label}; the last is {bars[-1].total:,.0f}."
    )


def _unit(unit: str) -> str:
    return f" {unit}" if unit else ""


def _short(number: float) -> str:
    return f"{number:.1f}".removesuffix(".0")
