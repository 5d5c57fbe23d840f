"""Compares what a request costs with what it costs elsewhere.

Each round starts a private httpd (event MPM) for this module in both modes, for mod_wsgi,
and for what people run behind mod_proxy instead: same httpd, same Python, same
applications.  All stand side by side, idle, and each workload goes through all of them in
short passes, there and back, so that a busy moment of the machine hurts neighbours alike:
servers are compared pass by pass, and the median of those ratios is what counts.  The
first figure is the CPU time per request of all server processes: on a machine that also
runs the client it is what other load disturbs least.  Medians over the passes go to
target/bench as results.md, results.svg and results.json; `--publish` puts them into
docs/performance.md.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import TypeVar

from plot import plot
from report import report
from results import Results
from series import DJANGO, STANDING, Point, Series
from series import all_series, four_processes, measure, ready, standing, start
from servers import Missing, Running, Server, Setup, machine, peers, prepare, running
from workloads import WORKLOADS, Figures, Workload, small

say = machine.say
PAGE = machine.REPOSITORY / "docs" / "performance.md"
BEGIN, END = "<!-- results -->", "<!-- end of results -->"
# A start takes a moment only, which whatever else runs can double.
STARTS = 5

Item = TypeVar("Item")


def arguments() -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--passes", type=int, default=3, help="through the servers, per workload and round"
    )
    parser.add_argument("--seconds", type=int, default=1, help="load per pass")
    parser.add_argument("--quick", action="store_true", help="1 round of 1 pass, not warmed up")
    parser.add_argument(
        "--only", default="", metavar="TEXT[,TEXT]",
        help="workloads, series and `standing` whose name contains one of these",
    )
    parser.add_argument("--minutes", type=int, default=60, help="begin nothing after that")
    parser.add_argument("--module", default="target/release/mod_wsgi_rs.so")
    parser.add_argument("--publish", action="store_true", help="into docs/performance.md")
    parser.add_argument("--list", action="store_true", help="name what can be measured")
    options = parser.parse_args()
    if options.publish and options.only:
        parser.error("--publish replaces all tables of the page: leave out --only")
    if options.quick:
        options.rounds, options.passes, options.seconds = 1, 1, 1
    options.warm = 0 if options.quick else 1
    options.starts = 1 if options.quick else STARTS
    options.rounds = max(1, min(options.rounds, 20))
    options.passes = max(1, min(options.passes, 20))
    options.seconds = max(1, min(options.seconds, 30))
    options.deadline = time.monotonic() + 60 * max(1, min(options.minutes, 240))
    return options


def is_wanted(options: argparse.Namespace, name: str) -> bool:
    """Whether `--only` lets it through."""
    texts = options.only.split(",") if options.only else [""]
    return any(text.strip().lower() in name.lower() for text in texts)


class OutOfTime(Exception):
    """What there was time for is measured."""


def attempt(what: str, how: Callable[[], Figures | None]) -> Figures:
    """What `how` measured; nothing from a server that fails, and that is said."""
    try:
        return how() or {}
    except (Missing, OSError, subprocess.SubprocessError) as error:
        print(f"no figure for {what}: {error}", file=sys.stderr, flush=True)
        return {}


def take(
    setup: Setup, results: Results, table: str, number: int, row: str,
    how: Callable[[], Figures],
) -> None:
    """Keeps one measurement, that of a row in a numbered pass."""
    if time.monotonic() > setup.options.deadline:
        raise OutOfTime
    what = f"{table}, pass {number + 1}: {row}"
    say(f"  {what}")
    results.add(table, row, attempt(what, how), number)


def in_turn(items: Sequence[Item], number: int) -> Sequence[Item]:
    """There in one pass, back in the next: what changes steadily favours nobody."""
    return items if number % 2 == 0 else items[::-1]


def one_round(setup: Setup, results: Results, number: int) -> None:
    """Every workload on every server."""
    works = [work for work in WORKLOADS if is_wanted(setup.options, work.name)]
    servers = dict.fromkeys(server for work in works for server in work.servers)
    with contextlib.ExitStack() as stack:
        live: dict[Server, Running] = {}
        for server in servers:
            try:
                live[server] = stack.enter_context(running(setup, server))
            except (Missing, OSError) as error:
                print(f"{server.name} is left out: {error}", file=sys.stderr, flush=True)
        for work in works:
            all_passes(setup, results, number, work, live)


def all_passes(
    setup: Setup, results: Results, number: int, work: Workload, live: dict[Server, Running]
) -> None:
    """One workload, again and again through its servers."""
    options = setup.options
    servers = [server for server in work.servers if server in live]
    for server in servers:
        what = f"{work.name}, warming up: {server.name}"
        attempt(what, partial(work.warm, live[server], options.warm))
    count = work.passes(options.passes)
    for at in range(number * count, (number + 1) * count):
        for server in in_turn(servers, at):
            take(
                setup, results, work.name, at, server.name,
                partial(work.run, live[server], options.seconds),
            )


def at_rest(setup: Setup, results: Results, number: int) -> None:
    """Start, memory and reload."""
    count = setup.options.starts
    for at in range(number * count, (number + 1) * count):
        for server in in_turn(STANDING, at):
            take(setup, results, "start", at, server.name, partial(start, setup, server))
    for server in in_turn(STANDING, number):
        take(setup, results, "standing", number, server.name, partial(standing, setup, server))


def all_points(setup: Setup, results: Results, number: int, series: Series) -> None:
    """One series."""
    if series.side_by_side:
        side_by_side(setup, results, number, series)
        return
    for point in in_turn(series.points, number):
        take(
            setup, results, f"{series.name} {point.at}", number, point.server.name,
            partial(measure, setup, point),
        )


def side_by_side(setup: Setup, results: Results, number: int, series: Series) -> None:
    """One series, again and again through its servers."""
    options = setup.options
    with contextlib.ExitStack() as stack:
        live: dict[Point, Running] = {}
        for point in series.points:
            try:
                live[point] = stack.enter_context(ready(setup, point))
            except (Missing, OSError) as error:
                print(f"{point.server.name} is left out: {error}", file=sys.stderr, flush=True)
        for at in range(number * options.passes, (number + 1) * options.passes):
            for point in in_turn(tuple(live), at):
                take(
                    setup, results, f"{series.name} {point.at}", at, point.server.name,
                    partial(small, live[point], point.requests, options.seconds),
                )


def measure_all(setup: Setup, results: Results, series: tuple[Series, ...]) -> None:
    """Everything that is wanted, round after round."""
    options = setup.options
    for number in range(options.rounds):
        say(f"Round {number + 1} of {options.rounds}:")
        one_round(setup, results, number)
        if is_wanted(options, "standing"):
            at_rest(setup, results, number)
        for one in series:
            if is_wanted(options, one.name):
                all_points(setup, results, number, one)
        # Memory after the same requests is the same again: once is enough.
        if number == 0 and is_wanted(options, "django memory"):
            for server in DJANGO:
                take(
                    setup, results, "Django x 4", 0, server.name,
                    partial(four_processes, setup, server),
                )
        results.rounds = number + 1


def counted(number: int, one: str, more: str) -> str:
    """A number and what it counts."""
    return f"{number} {one if number == 1 else more}"


def method(options: argparse.Namespace, results: Results) -> str:
    """Says how the figures came about, and whether there was time for all."""
    begun = min(results.rounds + 1, options.rounds)
    passes = counted(begun * options.passes, "pass", "passes")
    cut = ", cut short as the time was up" if results.rounds < begun else ""
    return (
        f"medians of {passes} of {options.seconds} s in {counted(begun, 'round', 'rounds')}{cut}; "
        "ratios are medians of the ratios of neighbouring passes, their spread that of the middle "
        "half (of fewer than four ratios, of all)"
    )


def heading(setup: Setup, results: Results) -> str:
    """Says when and with what the figures were taken."""
    version = subprocess.run([machine.httpd(), "-v"], capture_output=True, text=True, check=True)
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return (
        f"Taken on {datetime.date.today():%d %B %Y} with "
        f"{version.stdout.splitlines()[0].partition(': ')[2]}, event MPM, Python "
        f"{setup.python.name}, {', '.join(package for package in peers.OTHERS[1:])}; "
        f"{platform.machine()}, {os.cpu_count()} CPUs, {memory:.0f} GB, Linux "
        f"{platform.release().partition('-')[0]}, the client on the same CPUs; "
        f"{method(setup.options, results)}; 8 kept connections unless the column says otherwise.\n"
    )


def publish(text: str, picture: str) -> None:
    """Puts the results where readers look for them."""
    before, _, rest = PAGE.read_text().partition(BEGIN)
    after = rest.partition(END)[2]
    shown = f"![CPU time per request]({PAGE.stem}.svg)"
    PAGE.write_text(f"{before}{BEGIN}\n\n{shown}\n\n{text}\n{END}{after}")
    PAGE.with_suffix(".svg").write_text(picture)


def main() -> int:
    """Measures, prints, keeps."""
    os.umask(0o022)
    options = arguments()
    series = all_series(options.quick)
    if options.list:
        names = [*(w.name for w in WORKLOADS), *(s.name for s in series)]
        say("\n".join([*names, "standing", "Django memory"]))
        return 0
    results = Results()
    try:
        peers.BENCH.mkdir(parents=True, exist_ok=True)
        setup = prepare(options, peers.BENCH)
        with contextlib.suppress(OutOfTime):
            measure_all(setup, results, series)
    except (Missing, OSError, subprocess.SubprocessError) as error:
        return machine.fail(error)
    except KeyboardInterrupt:
        return 130
    text = f"{heading(setup, results)}\n{report(results, series)}"
    picture = plot(results, series)
    results.save(peers.BENCH / "results.json")
    (peers.BENCH / "results.md").write_text(text)
    (peers.BENCH / "results.svg").write_text(picture)
    say("\n" + text)
    if options.publish:
        publish(text, picture)
    say(f"kept in {peers.BENCH}: results.md, results.svg, results.json")
    return 0


if __name__ == "__main__":
    sys.exit(main())
