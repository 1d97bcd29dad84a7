"""Results of items as a page of Markdown, pictures and JSON."""

import json

import charts
from charts import number

# The name of the file with all samples.
SAMPLES = "results.json"

HEAD = """# Benchmarks

Made by `scripts/bench`, which measures it all again, here or elsewhere. Absolute figures move with the machine and with
what else runs on it; what counts are the ratios: contenders take turns (A B B A), each ratio is the median of those of
neighbouring turns, and the interval is the 95 % interval of that median. *Spread* is from the 10th to the 90th
percentile. Figures that are too few for an interval have none. What the items are, and how to repeat one:
[bench/README.md]({readme}).
"""


def cell(words):
    return str(words).replace("|", "\\|").replace("\n", " ")


def table(head, rows):
    lines = ["| " + " | ".join(head) + " |", "| --- " * len(head) + "|"]
    return "\n".join(lines + ["| " + " | ".join(map(cell, row)) + " |" for row in rows])


def comparison(result):
    rows = []
    for figure in result["figures"]:
        bounds = figure["interval"]
        met = {None: "", True: ": met", False: ": **not met**"}[figure["met"]]
        rows.append(
            (
                figure["who"],
                number(figure["value"]),
                f"{number(figure['low'])} – {number(figure['high'])}" if figure["count"] > 1 else "",
                "1" if figure["who"] == result["baseline"] else number(figure["ratio"]),
                f"{number(bounds[0])} – {number(bounds[1])}" if bounds else "",
                figure["aim"] + met,
                figure["notes"],
            )
        )
    to = f"ratio to {result['baseline']}" if result["baseline"] else ""
    head = [f"{result['unit']}", "median", "spread", to, "95 %", "aim", "notes"]
    # A column that says nothing is left out.
    kept = [i for i in range(len(head)) if i == 0 or any(row[i] for row in rows)]
    return table([head[i] for i in kept], [[row[i] for i in kept] for row in rows])


def curve(result):
    xs = sorted({x for points in result["lines"].values() for x, _ in points})
    rows = [[who, *(number(dict(map(tuple, points)).get(x)) for x in xs)] for who, points in result["lines"].items()]
    return table([f"{result['y_unit']}, {result['x_unit']}:", *(f"{x:,g}" for x in xs)], rows)


def timeline(result):
    rows = [
        (
            who,
            f"{sum(good for good, _ in entry['bins']):,}",
            f"{sum(bad for _, bad in entry['bins']):,}",
            ", ".join(f"{begin:.1f} – {end:.1f} s" for begin, end in entry["spans"]),
        )
        for who, entry in result["lines"].items()
    ]
    return table(["contender", "answered", "failed", result["what"]], rows)


SHOWN = {"comparison": comparison, "curve": curve, "timeline": timeline}


def promises(items):
    """All aims, and whether they are met."""
    rows = [
        (
            result["title"],
            figure["who"],
            number(figure["value"]) + " " + result["unit"],
            number(figure["ratio"]),
            figure["aim"],
            "yes" if figure["met"] else "**no**",
        )
        for item in items
        for result in item["results"]
        if result["kind"] == "comparison"
        for figure in result["figures"]
        if figure["met"] is not None
    ]
    return table(["aim", "who", "figure", "ratio", "should be", "met"], rows) if rows else ""


def markdown(items, pictures, readme):
    """The page; `pictures` are the names of the files of items that have one."""
    lines = [HEAD.format(readme=readme)]
    if any(item["quick"] for item in items):
        lines.append("**Made with `--quick`: a look, from which nothing follows.**\n")
    page = promises(items)
    if page:
        lines += ["## Aims\n", page, ""]
    for item in items:
        lines += [f"## {item['item']}\n", item["about"], ""]
        where = item["environment"]
        what = f"commit {where['commit']}" if where["commit"] else f"{where['program']} given by `--supervisor`"
        lines += [
            f"`scripts/bench {item['item']}`, {where['date']}, {what}, {where['kernel']}, {where['cpu']}, "
            f"{where['memory']}, load before {where['load']}{', sched_autogroup' if where['autogroup'] else ''}; "
            f"{item['seconds'] / 60:.0f} min.",
            "",
        ]
        if item["item"] in pictures:
            lines += [f"![{item['item']}]({pictures[item['item']]})", ""]
        for result in item["results"]:
            lines += [f"### {result['title']}\n", SHOWN[result["kind"]](result), ""]
            lines += [f"- {note}" for note in result["notes"]] + [""] * bool(result["notes"])
        missing = item["missing"] + ["what follows: it has not come to its end"] * (not item["is_whole"])
        if missing:
            lines += ["Missing:", "", *(f"- {each}" for each in missing), ""]
    versions = {name: version for item in items for name, version in item["versions"].items()}
    lines += ["## Versions\n", ", ".join(f"{name} {version}" for name, version in sorted(versions.items())) + ".", ""]
    return "\n".join(lines)


def write(items, page, pictures, readme):
    """Writes `page`, and each item's picture and all samples, a line an item, into
    the folder `pictures`, beside which the page is."""
    pictures.mkdir(parents=True, exist_ok=True)
    names = {}
    for item in items:
        if drawn := charts.svg(item["results"]):
            (pictures / f"{item['item']}.svg").write_text(drawn)
            names[item["item"]] = f"{pictures.name}/{item['item']}.svg"
    (pictures / SAMPLES).write_text("[\n" + ",\n".join(map(json.dumps, items)) + "\n]\n")
    page.write_text(markdown(items, names, readme))
