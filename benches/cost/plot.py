"""The results as a picture: bars for the workloads, lines for the series."""

from __future__ import annotations

import math
from html import escape

from report import cell
from results import Results
from series import Series
from servers import ALL, Server

OURS, PEER, OTHER, FLOOR = "#1f6f8b", "#c8553d", "#b8b8b8", "#6b6b6b"
WIDTH, PANEL, GAP = 900, 430, 40
BAR, TITLE = 17, 30
BARS = ("hello", "typical", "POST 100 KB", "Flask", "Django", "many headers")


def colour(server: Server) -> str:
    """What a server is drawn in."""
    kinds = {"ours": OURS, "mod_wsgi": PEER, "httpd": FLOOR}
    return kinds.get(server.kind, OTHER)


def text(x: float, y: float, words: str, more: str = "") -> str:
    """Words at a place."""
    return f'<text x="{x:.0f}" y="{y:.0f}" {more}>{escape(words)}</text>'


def bars(results: Results, work: str, left: float, top: float) -> tuple[list[str], float]:
    """The CPU time of one workload, a bar a server; and where the panel ends."""
    found = [
        (server, figure)
        for server in ALL
        if (figure := results.median(work, server.name, "cpu")) is not None
    ]
    parts = [text(left, top + 14, f"{work}: CPU µs a request", 'font-weight="bold"')]
    longest = max((figure for _, figure in found), default=1)
    room = PANEL - 210 - 45
    for at, (server, figure) in enumerate(found):
        y = top + TITLE + at * BAR
        length = room * figure / longest
        parts.append(text(left + 205, y + 11, server.name, 'text-anchor="end"'))
        parts.append(
            f'<rect x="{left + 210:.0f}" y="{y}" width="{length:.1f}" height="{BAR - 4}" '
            f'fill="{colour(server)}"/>'
        )
        parts.append(text(left + 215 + length, y + 11, cell(figure)))
    return parts, top + TITLE + len(found) * BAR + 20


def lines(results: Results, series: Series, left: float, top: float) -> tuple[list[str], float]:
    """The CPU time of a series over its numbers; and where the panel ends."""
    height = 130
    drawn: dict[str, list[tuple[int, float]]] = {}
    for point in series.points:
        figure = results.median(f"{series.name} {point.at}", point.server.name, "cpu")
        if figure is not None:
            drawn.setdefault(point.server.kind, []).append((point.at, figure))
    numbers = sorted({at for line in drawn.values() for at, _ in line})
    if len(numbers) < 2:
        return [], top
    highest = max(figure for line in drawn.values() for _, figure in line)
    bottom = top + TITLE + height

    def x(number: int) -> float:
        share = math.log(number / numbers[0]) / math.log(numbers[-1] / numbers[0])
        return left + 30 + share * (PANEL - 80)

    parts = [text(left, top + 14, f"{series.what}: CPU µs a request", 'font-weight="bold"')]
    parts.append(f'<path d="M{left + 20},{bottom} H{left + PANEL - 30}" stroke="{OTHER}"/>')
    parts += [text(x(n), bottom + 14, f"{n:,}", 'text-anchor="middle"') for n in numbers]
    for kind, line in drawn.items():
        ink = {"ours": OURS, "mod_wsgi": PEER}.get(kind, OTHER)
        places = [(x(at), bottom - height * figure / highest) for at, figure in sorted(line)]
        path = " L".join(f"{at:.1f},{y:.1f}" for at, y in places)
        parts.append(f'<path d="M{path}" fill="none" stroke="{ink}" stroke-width="2"/>')
        for (at, y), (_, figure) in zip(places, sorted(line)):
            parts.append(f'<circle cx="{at:.1f}" cy="{y:.1f}" r="3" fill="{ink}"/>')
            parts.append(text(at, y - 6, cell(figure), 'text-anchor="middle"'))
    return parts, bottom + 35


def plot(results: Results, series: tuple[Series, ...]) -> str:
    """The whole picture, two panels wide."""
    panels = [lambda x, y, work=work: bars(results, work, x, y) for work in BARS
              if work in results.tables]
    panels += [lambda x, y, one=one: lines(results, one, x, y) for one in series]
    parts: list[str] = []
    top = 10.0
    for at in range(0, len(panels), 2):
        ends = [top]
        for column, panel in enumerate(panels[at:at + 2]):
            drawn, end = panel(10 + column * (PANEL + GAP // 2), top)
            parts += drawn
            ends.append(end)
        top = max(ends)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{top:.0f}" '
        f'viewBox="0 0 {WIDTH} {top:.0f}" font-family="sans-serif" font-size="11">\n'
        '<rect width="100%" height="100%" fill="white"/>\n' + "\n".join(parts) + "\n</svg>\n"
    )
