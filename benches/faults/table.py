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
    """One table of all modules: for each its failures, its latest answers, its recovery."""
    names = list(tables)
    head = "| case | processes |"
    rule = "|---|---:|"
    for name in names:
        head += f" {name}: failed / requests | retried | late ms | files late ms | recovery ms |"
        rule += "---:|---:|---:|---:|---:|"
    lines = [head, rule]
    rows = {name: {(row.case, row.processes): row for row in tables[name]} for name in names}
    keys = list(dict.fromkeys(key for name in names for key in rows[name]))
    for key in keys:
        cells = "".join(cells_of(rows[name].get(key)) for name in names)
        lines.append(f"| {key[0]} | {key[1]} |{cells}")
    for name in names:
        lines += ["", f"What {name} failed, and what there is to say about the other rows:", ""]
        lines += [f"- {remark}" for remark in remarks(tables[name])]
    return lines


def cells_of(row: Row | None) -> str:
    """The cells of one module in one row; bold if it did not hold."""
    if row is None or not row.requests:
        return f" {row.verdict if row else ''} | | | | |"
    failed = f"{row.failed} / {row.requests}"
    if row.allowed:
        failed = f"{row.failed} ({row.allowed} had to) / {row.requests}"
    if row.verdict != "held":
        failed = f"**{failed}**"
    return (
        f" {failed} | {row.retried} | {row.slowest:.0f} | {row.slowest_static:.0f} "
        f"| {row.recovery:.0f} |"
    )


def remarks(rows: list[Row]) -> list[str]:
    """Faults and notes; one line for both numbers of processes where they agree."""
    said: dict[tuple[str, str], list[str]] = {}
    for row in rows:
        text = "; ".join([*(f"**{fault}**" for fault in row.faults), *row.notes])
        if text:
            said.setdefault((row.case, text), []).append(str(row.processes))
    return [
        f"{case}, processes={' and '.join(processes)}: {text}"
        for (case, text), processes in said.items()
    ]
