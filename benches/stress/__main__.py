"""Sends many requests to five interpreters of one process and watches what it keeps.

Embedded and daemon mode, each with a lock that all interpreters share and, from Python 3.12 on,
with locks of their own: 24 threads, 24 clients (ApacheBench), a main interpreter and four more.
After each round the process is asked for its private memory, its blocks and its objects, in
every interpreter.  It must be the process of the first round, and from the time it is warm it
must not grow beyond noise; nor must httpd's child.  `--valgrind` runs a few requests under
valgrind instead, with timeouts, a changed script, a graceful restart and clients that go away;
`--stops` stops httpd that often under load.
"""

from __future__ import annotations

import argparse
import fcntl
import os
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

from server import MOUNTS, Cell, State, Subject, running  # first: it finds `machine`

import machine
from machine import Missing, Python, say
from memcheck import under_valgrind
from stops import stop_often

# A round is long enough to fill what is kept on purpose, such as spare streams and arenas.
ROUNDS = 12
# Rounds before the first measurement.
WARM = 4
# What an allocator may keep, in KB, and how many blocks an interpreter may gain by chance.
NOISE_KB = 1024
NOISE_BLOCKS = 400


def try_cell(cell: Cell, subject: Subject, options: argparse.Namespace) -> list[str]:
    """What is wrong with a cell."""
    # What malloc keeps for each of the threads grows for 50,000 requests and hides a leak.
    subject = replace(subject, variables=(("MALLOC_ARENA_MAX", "1"),))
    with running(cell, subject) as server:
        states = []
        wrong = 0
        for number in range(1, ROUNDS + 1):
            wrong += server.send(options.requests // ROUNDS)
            states.append(server.state())
            if options.verbose:
                say(f"  round {number}: {states[-1]}")
    return judge(cell, states, wrong)


def judge(cell: Cell, states: list[State], wrong: int) -> list[str]:
    """Compares the last round with the first warm ones; says the figures."""
    warm, last = states[WARM:-3], states[-3:]
    before = max(state.memory for state in warm)
    after = min(state.memory for state in last)
    gained = []
    for place in range(len(MOUNTS)):
        was = max(state.blocks[place] for state in warm)
        gained.append(min(state.blocks[place] for state in last) - was)
    child = min(state.child for state in last) - max(state.child for state in warm)
    descriptors = min(state.handles for state in last) - max(state.handles for state in warm)
    say(
        f"{cell.name}: private memory {before} KB, then {after} KB ({after - before:+}); "
        f"blocks by interpreter {', '.join(f'{number:+}' for number in gained)}; "
        f"descriptors {descriptors:+}; httpd's child {child:+} KB; {wrong} requests went wrong"
    )
    complaints = []
    if len({state.pid for state in states}) != 1:
        complaints.append("the process was replaced")
    if wrong:
        complaints.append(f"{wrong} requests went wrong")
    if after - before > NOISE_KB:
        complaints.append(f"memory grew by {after - before} KB")
    if child > NOISE_KB:
        complaints.append(f"httpd's child grew by {child} KB")
    if max(gained) > NOISE_BLOCKS:
        complaints.append(f"an interpreter gained {max(gained)} blocks")
    if descriptors > 2:
        complaints.append(f"{descriptors} descriptors were left open")
    return [f"{cell.name}: {complaint}" for complaint in complaints]


def choose(version: str, shelf: Path) -> Python:
    """A Python of this version, or this interpreter, that everybody may read."""
    if "/" in version:
        named = machine.probe(version)
        if named is None:
            raise Missing(f"{version} is no Python with a shared library")
        return named
    wanted = tuple(map(int, version.split(".")))
    for python in machine.pythons():
        if python.version[: len(wanted)] == wanted:
            if os.getuid() == 0 and not machine.readable_by_all(python.prefix):
                shelf.mkdir(exist_ok=True)
                with (shelf / "lock").open("w") as lock:
                    # Others may run at the same time.
                    fcntl.flock(lock, fcntl.LOCK_EX)
                    return machine.copy_python(python, shelf / python.name)
            return python
    raise Missing(f"there is no Python {version} with a shared library")


def attempt(cell: Cell, subject: Subject, options: argparse.Namespace) -> list[str]:
    """What is wrong with a cell, in the way that was asked for."""
    if options.valgrind:
        return under_valgrind(cell, subject, options.requests)
    if options.stops:
        return stop_often(cell, subject, options.stops)
    return try_cell(cell, subject, options)


def arguments() -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(prog="make stress", description=__doc__)
    parser.add_argument("--requests", type=int, help="for each cell")
    parser.add_argument("--python", default="3.11", help="its version, such as 3.12, or its path")
    parser.add_argument("--module", type=Path, help="another module than the one built here")
    parser.add_argument("--mode", choices=("embedded", "daemon"))
    parser.add_argument("--lock", choices=("shared", "own", "no"))
    parser.add_argument("--watched", action="store_true", help="events, telemetry and metrics too")
    parser.add_argument("--valgrind", action="store_true", help="a few requests under memcheck")
    parser.add_argument("--stops", type=int, help="stop httpd so often under load instead")
    parser.add_argument("--verbose", action="store_true")
    options = parser.parse_args()
    options.requests = options.requests or (0 if options.valgrind else 200_000)
    return options


def main() -> int:
    """Runs the cells; 1 if one of them leaks, crashes or answers wrongly."""
    options = arguments()
    shelf = Path(tempfile.gettempdir()) / f"wsgi-stress-pythons-{os.getuid()}"
    complaints: list[str] = []
    try:
        python = choose(options.python, shelf)
        module = options.module or machine.REPOSITORY / "target" / "release" / "mod_wsgi_rs.so"
        if not module.is_file():
            raise Missing(f"{module} is not there: run `make` first")
        subject = Subject(python, module, options.watched)
        locks = ("shared", "own") if python.version >= (3, 12, 0) else ("shared",)
        if python.is_free_threaded:
            locks = ("no", "shared")
        say(f"Python {python.name}, {options.requests} requests for each")
        for mode in ("daemon", "embedded"):
            for lock in locks:
                if options.mode in (None, mode) and options.lock in (None, lock):
                    complaints += attempt(Cell(mode, lock), subject, options)
    except (Missing, AssertionError) as error:
        return machine.fail(error)
    for complaint in complaints:
        say(complaint)
    return 1 if complaints else 0


if __name__ == "__main__":
    sys.exit(main())
