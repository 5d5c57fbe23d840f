"""The rows as text: a line each while they come, a table in the end."""

from __future__ import annotations

import os
import platform
import subprocess

from cases import LATE
from server import machine
from verdict import Row


def line(row: Row) -> str:
    """A row for whoever waits at the terminal."""
    title = f"{row.case}, processes={row.processes}"
    if not row.requests:
        return f"  {title:<56} {row.verdict}"
    text = (
        f"  {title:<56} {row.verdict:<6} {row.requests:>6} requests "
        f"{row.failed:>4} failed ({row.allowed} unavoidable) {row.retried:>3} retried, "
        f"{row.slowest:.0f} ms late (before {row.slowest_before:.0f}, "
        f"static {row.slowest_static:.0f}, clients {row.stumble:.0f}), "
        f"recovery {row.recovery:.0f} ms"
    )
    details = [*row.faults, *row.notes]
    if max(row.slowest, row.slowest_before) > LATE * 1e3:
        details += row.latest
    details += [f"{count}x {outcome}" for outcome, count in row.outcomes.items()]
    return text + "".join(f"\n      - {detail}" for detail in details)


def heading() -> list[str]:
    """What the figures were taken with."""
    version = subprocess.run([machine.httpd(), "-v"], capture_output=True, text=True, check=True)
    return [
        f"{version.stdout.splitlines()[0].partition(': ')[2]}, event MPM; "
        f"{platform.machine()}, {os.cpu_count()} CPUs, the clients on the same ones.",
        "",
    ]


def side_by_side(tables: dict[str, list[Row]]) -> list[str]:
    """One table of all modules: for each its failures, its slowest answer, its recovery."""
    names = list(tables)
    head = "| case | processes |"
    rule = "|---|---:|"
    for name in names:
        head += f" {name} | failed / requests | retried | late ms | static ms | recovery ms |"
        rule += "---|---:|---:|---:|---:|---:|"
    lines = [head, rule]
    rows = {name: {(row.case, row.processes): row for row in tables[name]} for name in names}
    keys = list(dict.fromkeys(key for name in names for key in rows[name]))
    for key in keys:
        cells = "".join(cells_of(rows[name].get(key)) for name in names)
        lines.append(f"| {key[0]} | {key[1]} |{cells}")
    return lines


def cells_of(row: Row | None) -> str:
    """The cells of one module in one row."""
    if row is None or not row.requests:
        return f" {row.verdict if row else ''} | | | | | |"
    failed = f"{row.failed}" + (f" ({row.allowed} unavoidable)" if row.allowed else "")
    return (
        f" {row.verdict} | {failed} / {row.requests} | {row.retried} | {row.slowest:.0f} "
        f"| {row.slowest_static:.0f} | {row.recovery:.0f} |"
    )
