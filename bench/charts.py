"""Results as SVG, readable on light and dark pages. One file an item: its
charts below each other."""

import math
from html import escape

WIDTH, LEFT, RIGHT = 760, 190, 150
# class: property, on light, on dark.
COLOURS = {
    "text": ("fill", "#1f2328", "#e6edf3"),
    ".soft": ("fill", "#59636e", "#9198a1"),
    ".grid": ("stroke", "#d1d9e0", "#3d444d"),
    ".ours": ("fill", "#1a7f64", "#3fb68b"),
    ".base": ("fill", "#8c959f", "#7d8590"),
    ".peer": ("fill", "#b8c4d0", "#4a5563"),
    ".bad": ("fill", "#cf222e", "#f85149"),
    ".span": ("fill", "#ddf4ff", "#12304a"),
    ".line": ("stroke", "#1a7f64", "#3fb68b"),
}
# Lines of the others, which have no better and no worse.
LINES = ("#bf8700", "#8250df", "#218bff", "#e16f24", "#d4469a", "#768390", "#1b9aaa", "#a0753c", "#6b8e23", "#c0392b")
STYLE = (
    'text{font:13px system-ui,-apple-system,"Segoe UI",sans-serif}.title{font-weight:600;font-size:14px}.soft{font-size:12px}'
    ".end{text-anchor:end}.middle{text-anchor:middle}.curve{fill:none;stroke-width:2;stroke-linejoin:round}"
    + "".join(f"{name}{{{what}:{light}}}" for name, (what, light, _) in COLOURS.items())
    + "@media(prefers-color-scheme:dark){"
    + "".join(f"{name}{{{what}:{dark}}}" for name, (what, _, dark) in COLOURS.items())
    + "}"
)


def number(value):
    """Three digits that count."""
    if value is None:
        return ""
    if value and abs(value) < 1:
        return f"{value:.2g}"
    digits = 2 if abs(value) < 10 else 1 if abs(value) < 100 else 0
    return f"{value:,.{digits}f}"


def text(x, y, words, style=""):
    return f'<text x="{x:.1f}" y="{y:.1f}" class="{style}">{escape(words)}</text>'


def box(x, y, width, height, style):
    return f'<rect x="{x:.1f}" y="{y:.1f}" width="{max(width, 1):.1f}" height="{height:.1f}" class="{style}"/>'


def line(x1, y1, x2, y2):
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" class="grid"/>'


def is_ours(who):
    return who.split(",")[0] == "supervisor"


def bars(comparison, top):
    """A horizontal bar for each contender, with its ratio."""
    figures = comparison["figures"]
    values = [figure["value"] for figure in figures if figure["value"] > 0] or [1]
    logarithmic = max(values) / min(values) > 30
    floor = 10 ** math.floor(math.log10(min(values)) - 0.3)
    room = WIDTH - LEFT - RIGHT

    def length(value):
        if logarithmic:
            return room * math.log(max(value, floor) / floor) / math.log(max(values) / floor)
        return room * value / max(values)

    best = "less" if comparison["less_is_better"] else "more"
    subtitle = f"{comparison['unit']}, {best} is better" + (", logarithmic" if logarithmic else "")
    parts = [text(8, top + 18, comparison["title"], "title"), text(WIDTH - 8, top + 18, subtitle, "soft end")]
    y = top + 30
    for figure in figures:
        who = figure["who"]
        style = "ours" if is_ours(who) else "base" if who == comparison["baseline"] else "peer"
        wide = length(figure["value"])
        ratio = f" ({number(figure['ratio'])}×)" if figure["ratio"] is not None else ""
        parts += [
            text(LEFT - 8, y + 14, who, "end"),
            box(LEFT, y + 2, wide, 16, style),
            text(LEFT + wide + 6, y + 14, number(figure["value"]) + ratio),
        ]
        y += 22
    return parts, y + 14


def curves(curve, top):
    """Lines on two logarithmic axes, named at their ends."""
    points = [point for line_points in curve["lines"].values() for point in line_points if point[1] > 0]
    if not points:
        return [], top
    spread = lambda values: (math.log10(min(values)), max(math.log10(max(values)), math.log10(min(values)) + 0.1))
    (x_low, x_high), (y_low, y_high) = (spread([point[axis] for point in points]) for axis in (0, 1))
    y_low, y_high = math.floor(y_low), math.ceil(y_high)
    left, width, height = 60, WIDTH - 60 - RIGHT, 260
    bottom = top + 40 + height
    at_x = lambda x: left + width * (math.log10(x) - x_low) / (x_high - x_low)
    at_y = lambda y: bottom - height * (math.log10(y) - y_low) / (y_high - y_low)
    parts = [
        text(8, top + 18, curve["title"], "title"),
        text(WIDTH - 8, top + 18, f"{curve['y_unit']} by {curve['x_unit']}, logarithmic", "soft end"),
    ]
    for power in range(y_low, y_high + 1):
        parts += [
            line(left, at_y(10**power), left + width, at_y(10**power)),
            text(left - 6, at_y(10**power) + 4, f"{10**power:,g}", "soft end"),
        ]
    for x in sorted({point[0] for point in points}):
        parts.append(text(at_x(x), bottom + 18, f"{x:,g}", "soft middle"))
    labels, colours = [], iter(LINES * 3)
    for who, all_points in curve["lines"].items():
        shown = [(at_x(x), at_y(y)) for x, y in all_points if y > 0]
        if not shown:
            continue
        colour = None if is_ours(who) else next(colours)
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in shown)
        stroke = f'style="stroke:{colour}"' if colour else ""
        parts.append(f'<polyline points="{path}" class="curve line" {stroke}/>')
        labels.append((shown[-1][1], who, f'style="fill:{colour}"' if colour else 'class="ours"'))
    # Names keep their distance from each other.
    y = -math.inf
    for wanted, who, colour in sorted(labels):
        y = max(wanted, y + 15)
        parts.append(f'<text x="{left + width + 8}" y="{y + 4:.1f}" {colour}>{escape(who)}</text>')
    return parts, max(bottom + 40, y + 20)


def timeline(chart, top):
    """Answers in each tenth of a second as bars, failures in red on top."""
    parts, y, height, width = [text(8, top + 18, chart["title"], "title")], top + 30, 110, WIDTH - 16 - 60
    most = max((sum(each) for entry in chart["lines"].values() for each in entry["bins"]), default=1)
    slots = max((len(entry["bins"]) for entry in chart["lines"].values()), default=1)
    wide = width / slots
    for who, entry in chart["lines"].items():
        failed = sum(each[1] for each in entry["bins"])
        answered = sum(each[0] for each in entry["bins"])
        parts += [
            text(60, y + 14, who, "title"),
            text(WIDTH - 8, y + 14, f"{answered:,} answered, {failed:,} failed", "end bad" if failed else "end"),
        ]
        bottom = y + 26 + height
        for begin, end in entry["spans"]:
            parts.append(box(60 + begin * 10 * wide, y + 24, (end - begin) * 10 * wide, height + 2, "span"))
        scale = height / most
        for slot, (good, bad) in enumerate(entry["bins"]):
            x = 60 + slot * wide
            if good:
                parts.append(
                    box(x, bottom - good * scale, wide * 0.85, good * scale, "ours" if is_ours(who) else "base")
                )
            if bad:  # However few there are: they must be seen.
                tall = max(bad * scale, 5)
                parts.append(box(x, max(bottom - good * scale - tall, y + 24), wide * 0.85, tall, "bad"))
        parts += [
            line(60, bottom, 60 + width, bottom),
            text(54, y + 34, f"{most * 10:,}/s", "soft end"),
            text(54, bottom, "0", "soft end"),
        ]
        y = bottom + 10
    seconds = slots // 10
    for second in range(0, seconds + 1, max(1, seconds // 8)):
        parts.append(text(60 + second * 10 * wide, y + 6, f"{second} s", "soft middle"))
    parts.append(text(WIDTH - 8, y + 24, f"shaded: {chart['what']}; red: failed", "soft end"))
    return parts, y + 40


DRAWN = {"comparison": bars, "curve": curves, "timeline": timeline}


def svg(results):
    """One picture of an item's results, or None."""
    parts, top = [], 6
    for result in results:
        if result.get("charted", True) and (result.get("figures") or result.get("lines")):
            more, top = DRAWN[result["kind"]](result, top)
            parts += more
    if not parts:
        return None
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {top:.0f}" width="{WIDTH}" height="{top:.0f}" role="img">'
    return "\n".join([head, f"<style>{STYLE}</style>", *parts, "</svg>"]) + "\n"
