"""The results as Markdown."""

from __future__ import annotations

from results import Results
from series import DJANGO, STANDING, Series
from targets import TARGETS, Target
from workloads import WORKLOADS
from servers import ALL, DAEMON, PEER_DAEMON


def cell(figure: float | None) -> str:
    """A figure with as many digits as it is good for."""
    if figure is None:
        return "–"
    return f"{figure:.0f}" if figure >= 100 else f"{figure:.1f}" if figure >= 10 else f"{figure:.2f}"


def table(head: list[str], rows: list[list[str]]) -> list[str]:
    """A table of Markdown; the first column is text."""
    ruler = "|---|" + "---:|" * (len(head) - 1)
    return [f"| {' | '.join(cells)} |" if cells else ruler for cells in (head, [], *rows)] + [""]


def measured(results: Results, title: str, rows: list[str], columns: list[tuple]) -> list[str]:
    """A table of medians; a column is its title, its table and its figure."""
    lines = []
    for row in rows:
        cells = [cell(results.median(name, row, figure)) for _, name, figure in columns]
        if any(text != "–" for text in cells):
            lines.append([row, *cells])
    used = [
        at for at, _ in enumerate(columns, 1) if any(line[at] != "–" for line in lines)
    ]
    if not used:
        return []
    head = [title, *(columns[at - 1][0] for at in used)]
    return table(head, [[line[0], *(line[at] for at in used)] for line in lines])


def of_workloads(results: Results, title: str, figure: str, unit: str) -> list[str]:
    """One figure of all workloads with this unit of CPU time."""
    chosen = [work for work in WORKLOADS if work.unit == unit]
    rows = [server.name for server in ALL]
    return measured(results, title, rows, [(work.name, work.name, figure) for work in chosen])


def of_series(results: Results, series: Series) -> list[str]:
    """CPU time at each number."""
    numbers = list(dict.fromkeys(point.at for point in series.points))
    lines = []
    for kind, name in (("ours", DAEMON.name), ("mod_wsgi", PEER_DAEMON.name)):
        points = {point.at: point.server for point in series.points if point.server.kind == kind}
        figures = [
            results.median(f"{series.name} {number}", points[number].name, "cpu")
            if number in points else None
            for number in numbers
        ]
        if any(figure is not None for figure in figures):
            lines.append([name.partition(",")[0], *map(cell, figures)])
    return table([series.what, *map(str, numbers)], lines) if lines else []


def verdict(target: Target, results: Results) -> list[str]:
    """A target's row."""
    reached = target.reached(results)
    if reached is None:
        return []
    # Equal as printed is equal: nobody measures a thousandth.
    met = round(reached.median, 2) <= target.at_most
    word = "met" if met else "**not met**"
    spread = f"{reached.low:.2f}–{reached.high:.2f}" if reached.passes > 1 else "–"
    shown = [f"{target.at_most:.2f}", f"{reached.median:.2f}", spread, word]
    return [target.what, target.against, *shown]


def targets(results: Results) -> list[str]:
    """What was promised and what came of it."""
    rows = [row for target in TARGETS if (row := verdict(target, results))]
    head = ["target", "against", "at most", "measured", "spread", ""]
    return table(head, rows) if rows else []


def report(results: Results, series: tuple[Series, ...]) -> str:
    """All tables."""
    standing = [
        ("start to first answer, ms", "start", "start"),
        ("reload, ms", "standing", "reload"),
        ("private, idle daemon process, MB", "standing", "daemon"),
        ("private, httpd child, MB", "standing", "child"),
        ("all processes, PSS MB", "standing", "all"),
    ]
    django = [(f"{name.upper()} MB", "Django x 4", name) for name in ("rss", "pss", "private")]
    lines = [
        *targets(results),
        *of_workloads(results, "CPU µs a request", "cpu", "µs"),
        *of_workloads(results, "requests a second", "rate", "µs"),
        *of_workloads(results, "p50, ms", "p50", "µs"),
        *of_workloads(results, "p99, ms", "p99", "µs"),
        *of_workloads(results, "CPU ms a transfer", "cpu", "ms"),
        *measured(results, "at rest", [server.name for server in STANDING], standing),
        *measured(results, "four processes with Django", [s.name for s in DJANGO], django),
    ]
    for one in series:
        found = of_series(results, one)
        lines += [f"CPU µs a request (hello) by number of {one.what}:", "", *found] if found else []
    return "\n".join(lines).rstrip() + "\n"
