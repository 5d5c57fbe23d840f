"""Compares what a request costs with what it costs elsewhere.

Each round starts a private httpd (event MPM) for this module in both modes, for mod_wsgi,
and for what people run behind mod_proxy instead: same httpd, same Python, same
applications.  All stand side by side, idle, and each workload goes through all of them
before the next begins, so that a busy minute of the machine hurts all alike.  The first
figure is the CPU time per request of all server processes: on a machine that also runs
the client it is what other load disturbs least.  Medians over the rounds go to
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

from plot import plot
from report import report
from results import Results
from series import DJANGO, STANDING, all_series, four_processes, measure, standing
from servers import Missing, Setup, machine, peers, prepare, running
from workloads import WORKLOADS

say = machine.say
PAGE = machine.REPOSITORY / "docs" / "performance.md"
BEGIN, END = "<!-- results -->", "<!-- end of results -->"


def arguments() -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=2, help="load per measurement")
    parser.add_argument("--quick", action="store_true", help="1 round of 1 second")
    parser.add_argument(
        "--only", default="", metavar="TEXT[,TEXT]",
        help="workloads, series and `standing` whose name contains one of these",
    )
    parser.add_argument("--minutes", type=int, default=60, help="begin nothing after that")
    parser.add_argument("--module", default="target/release/mod_wsgi_rs.so")
    parser.add_argument("--publish", action="store_true", help="into docs/performance.md")
    parser.add_argument("--list", action="store_true", help="name what can be measured")
    options = parser.parse_args()
    if options.quick:
        options.rounds, options.seconds = 1, 1
    options.rounds = max(1, min(options.rounds, 20))
    options.seconds = max(1, min(options.seconds, 30))
    options.deadline = time.monotonic() + 60 * max(1, min(options.minutes, 240))
    return options


def is_wanted(options: argparse.Namespace, name: str) -> bool:
    """Whether `--only` lets it through."""
    texts = options.only.split(",") if options.only else [""]
    return any(text.strip().lower() in name.lower() for text in texts)


class OutOfTime(Exception):
    """What there was time for is measured."""


def take(options: argparse.Namespace, results: Results, table: str, row: str, how) -> None:
    """Keeps one measurement; a server that fails it has no figure, and that is said."""
    if time.monotonic() > options.deadline:
        raise OutOfTime
    say(f"  {table}: {row}")
    try:
        results.add(table, row, how())
    except (Missing, OSError, subprocess.SubprocessError) as error:
        print(f"{row} has no figure for {table}: {error}", file=sys.stderr, flush=True)


def one_round(setup: Setup, results: Results) -> None:
    """Every workload on every server."""
    options = setup.options
    works = [work for work in WORKLOADS if is_wanted(options, work.name)]
    servers = list(dict.fromkeys(server for work in works for server in work.servers))
    with contextlib.ExitStack() as stack:
        live = {server: stack.enter_context(running(setup, server)) for server in servers}
        for work in works:
            for server in work.servers:
                take(
                    options, results, work.name, server.name,
                    lambda: work.run(live[server], options.seconds),
                )


def at_rest(setup: Setup, results: Results) -> None:
    """Start, memory and reload."""
    if is_wanted(setup.options, "standing"):
        for server in STANDING:
            take(
                setup.options, results, "standing", server.name, lambda: standing(setup, server)
            )


def measure_all(setup: Setup, results: Results) -> None:
    """Everything that is wanted, round after round."""
    options = setup.options
    series = [one for one in all_series(options.quick) if is_wanted(options, one.name)]
    for number in range(options.rounds):
        say(f"Round {number + 1} of {options.rounds}:")
        one_round(setup, results)
        at_rest(setup, results)
        for one in series:
            for point in one.points:
                take(
                    options, results, f"{one.name} {point.at}", point.server.name,
                    lambda: measure(setup, point, options.seconds),
                )
    if is_wanted(options, "django memory"):
        for server in DJANGO:
            take(
                options, results, "Django x 4", server.name,
                lambda: four_processes(setup, server),
            )


def heading(setup: Setup) -> str:
    """Says when and with what the figures were taken."""
    version = subprocess.run([machine.httpd(), "-v"], capture_output=True, text=True, check=True)
    options = setup.options
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return (
        f"Taken on {datetime.date.today():%d %B %Y} with "
        f"{version.stdout.splitlines()[0].partition(': ')[2]}, event MPM, Python "
        f"{setup.python.name}, {', '.join(package for package in peers.OTHERS[1:])}; "
        f"{platform.machine()}, {os.cpu_count()} CPUs, {memory:.0f} GB, Linux "
        f"{platform.release().partition('-')[0]}, the client on the same CPUs; medians of "
        f"{options.rounds} interleaved rounds of {options.seconds} s, 8 kept connections "
        "unless the column says otherwise.\n"
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
            measure_all(setup, results)
    except (Missing, OSError, subprocess.SubprocessError) as error:
        return machine.fail(error)
    except KeyboardInterrupt:
        return 130
    text = f"{heading(setup)}\n{report(results, series)}"
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
