"""What items yield, and their results as JSON."""

from typing import NamedTuple

import stats


class Aim(NamedTuple):
    """What should be reached: by the ratio to the baseline, the lower end of its
    interval, and the figure itself."""

    ratio: float | None = None
    lower_end: float | None = None
    value: float | None = None


class Figure(NamedTuple):
    """One contender's samples, with the baseline's of the same turns."""

    who: str
    samples: list
    base: list = []
    aim: Aim | None = None
    notes: str = ""


class Comparison(NamedTuple):
    """Contenders side by side; ratios are to `baseline`."""

    title: str
    unit: str
    figures: list
    baseline: str = ""
    less_is_better: bool = True
    notes: tuple = ()
    charted: bool = True


class Curve(NamedTuple):
    """Something that grows: points (x, y) for each contender."""

    title: str
    x_unit: str
    y_unit: str
    lines: dict
    notes: tuple = ()


class Timeline(NamedTuple):
    """Answers and failures in each tenth of a second, by contender: each has
    `bins` ([answered, failed]), and `spans` (seconds from, to) in which something
    was done to it, such as a reload."""

    title: str
    what: str
    lines: dict
    notes: tuple = ()


def figure_json(figure, comparison):
    value = stats.median(figure.samples)
    ratios = [mine / its for mine, its in zip(figure.samples, figure.base) if its]
    ratio = stats.median(ratios) if ratios else None
    bounds = stats.interval(ratios) if ratios else None
    return {
        "who": figure.who,
        "value": value,
        "low": stats.quantile(figure.samples, 0.1),
        "high": stats.quantile(figure.samples, 0.9),
        "count": len(figure.samples),
        "ratio": ratio,
        "interval": bounds,
        "notes": figure.notes,
        **judged(figure.aim, value, ratio, bounds, comparison),
        "samples": figure.samples,
        "base": figure.base,
    }


def judged(aim, value, ratio, bounds, comparison):
    """The aim in words, and whether it is met; None where nothing can be said."""
    if aim is None or (ratio is None and aim.ratio is not None):
        return {"aim": "", "met": None}
    less = comparison.less_is_better
    sign = "≤" if less else "≥"
    reaches = lambda it, limit: it <= limit if less else it >= limit
    words, met = [], True
    if aim.ratio is not None:
        words.append(f"{sign} {aim.ratio:g}×")
        met &= reaches(ratio, aim.ratio)
    if aim.lower_end is not None:
        words.append(f"interval from ≥ {aim.lower_end:g}")
        met &= bounds is not None and bounds[0] >= aim.lower_end
    if aim.value is not None:
        words.append(f"{sign} {aim.value:,} {comparison.unit}")
        met &= reaches(value, aim.value)
    return {"aim": ", ".join(words), "met": met}


def to_json(result):
    """Any of the above as plain data; `kind` tells which."""
    kind = type(result).__name__.lower()
    plain = result._asdict()
    if kind == "comparison":
        plain["figures"] = [figure_json(figure, result) for figure in result.figures if figure.samples]
    return {"kind": kind, **plain}
