"""Does to a server under load whatever may happen to one, and counts what it costs.

Each case starts a private httpd (event MPM), warms it up, keeps a steady mixed load on it,
restarts, touches or kills something, and prints a row.  The rows are kept in
target/faults.  `WSGI_UNDER_TEST=/path/mod_wsgi.so` tries another module.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from cases import CASES, FEW_THREADS, LEAD, PATIENCE, SETTLE, THREADS, Case, Scene
from clients import Clients, Load
from server import Httpd, Settings, Subject, install, machine, peers, running
from soak import soak
from table import heading, line, side_by_side
from verdict import Row, judge

FAULTS = machine.REPOSITORY / "target" / "faults"
OURS = "mod_wsgi_rs"
PEER = peers.MOD_WSGI.replace("==", " ")


def arguments() -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--module", default="target/release/mod_wsgi_rs.so")
    parser.add_argument("--peer", action="store_true", help=f"try {peers.MOD_WSGI} as well")
    parser.add_argument("--only", default="", help="cases whose name contains this text")
    parser.add_argument("--processes", type=int, choices=(1, 2), help="not both numbers")
    parser.add_argument("--table", action="store_true", help="print what was kept, try nothing")
    parser.add_argument("--new", action="store_true", help="only what has no row yet")
    parser.add_argument("--list", action="store_true", help="name the cases")
    parser.add_argument(
        "--soak", type=int, nargs="?", const=1000, default=0, metavar="N",
        help="instead of the cases, so many graceful restarts with mod_ssl: 1000",
    )
    options = parser.parse_args()
    options.soak = max(0, min(options.soak, 5000))
    return options


def subjects(options: argparse.Namespace, root: Path) -> list[Subject]:
    """The modules to try."""
    named = os.environ.get("WSGI_UNDER_TEST")
    if named:
        return [install(Path(named).stem, Path(named), root / "named")]
    ours = machine.REPOSITORY / options.module
    found = [install(OURS, ours, root / "ours")]
    if options.peer:
        peer = peers.peer_module(machine.choose_python())
        found.append(install(PEER, peer, root / "peer"))
    return found


@contextlib.contextmanager
def alone(root: Path) -> Iterator[None]:
    """Nobody else uses the same server root meanwhile."""
    with open(root / "lock", "wb") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise machine.Missing(f"{root} is in use by another run") from error
        yield


def warm_up(httpd: Httpd, load: list[list[Clients]]) -> None:
    """Has every process load the scripts of the load: what is tried is no first start."""
    wanted = httpd.settings.processes
    machine.wait_until(lambda: len(httpd.daemons()) >= wanted, PATIENCE)
    asked = {clients.kind for group in load for clients in group}
    threads = FEW_THREADS if f"threads={FEW_THREADS}" in httpd.settings.options else THREADS
    for kind in ("warm-app", "warm-heavy") if "heavy" in asked else ("warm-app",):
        crowd = [[Clients(kind, threads * httpd.settings.processes, requests=1)]]
        everybody = set(httpd.daemons())
        met: set[int] = set()
        deadline = time.monotonic() + PATIENCE
        while not everybody <= met and time.monotonic() < deadline:
            records = Load(httpd.port, f"warm{time.monotonic_ns()}-", crowd).finish().records
            met |= {record.pid for record in records}


def attempt(subject: Subject, case: Case, processes: int) -> Row:
    """Tries one case."""
    settings = case.settings(processes)
    refusal = Httpd(subject, settings).refusal()
    if refusal:
        if case.options and not Httpd(subject, Settings(processes)).refusal():
            return Row(case.name, processes, "not offered")
        raise machine.Missing(refusal)
    with running(subject, settings) as httpd:
        warm_up(httpd, case.load)
        scene = Scene(httpd)
        scene.load = Load(httpd.port, "load", case.load)
        try:
            time.sleep(LEAD)
            case.event(scene)
            if scene.load:
                time.sleep(SETTLE)
                scene.seen.append(scene.load.stop())
                scene.load = None
        finally:
            if scene.load:
                scene.load.kill()
        keep_log(f"{subject.name} {case.name} {processes}", httpd.text())
        return judge(case, scene)


def keep_log(name: str, text: str) -> None:
    """Keeps the error log of a case: a row that failed is explained there."""
    folder = FAULTS / "logs"
    folder.mkdir(exist_ok=True)
    (folder / f"{re.sub('[^a-z0-9]+', '-', name.lower())}.log").write_text(text)


def rows_of(subject: Subject, options: argparse.Namespace) -> list[Row]:
    """Tries every case with one module."""
    rows: list[Row] = []
    kept = load_rows(subject.name)
    is_ours = subject.name == OURS
    machine.say(f"\n{subject.name}, Python {subject.version}:")
    for case in CASES:
        if options.only not in case.name:
            continue
        for processes in case.processes:
            if options.processes not in (None, processes):
                continue
            if options.new and (case.name, processes) in kept:
                continue
            if case.only_ours and not is_ours:
                rows.append(Row(case.name, processes, case.only_ours))
            else:
                rows.append(attempt(subject, case, processes))
            machine.say(line(rows[-1]))
            keep(subject.name, rows)
    return rows


def soak_all(options: argparse.Namespace) -> int:
    """Restarts each module again and again."""
    text = heading()
    with machine.server_root(FAULTS, "mod_wsgi_rs-faults-") as root, alone(root):
        for subject in subjects(options, root):
            machine.say(f"\n{subject.name}, Python {subject.version}:")
            text += [f"{subject.name}:", "", *soak(subject, options.soak), ""]
    report("soak", text)
    return 0


def report(name: str, lines: list[str]) -> None:
    """Prints a result and keeps it."""
    text = "\n".join(lines)
    path = FAULTS / f"{name}.md"
    path.write_text(text)
    machine.say(f"\n{text}\nkept in {path}")


def keep(name: str, rows: list[Row]) -> list[Row]:
    """Keeps the rows beside those of earlier runs; all of them, in the order of the cases."""
    path = FAULTS / f"{name.replace(' ', '-')}.json"
    kept = load_rows(name)
    kept |= {(row.case, row.processes): row for row in rows}
    order = [(case.name, processes) for case in CASES for processes in case.processes]
    sorted_rows = [kept[key] for key in order if key in kept]
    path.write_text(json.dumps([row.as_dict() for row in sorted_rows], indent=1))
    return sorted_rows


def load_rows(name: str) -> dict[tuple[str, int], Row]:
    """What earlier runs kept."""
    path = FAULTS / f"{name.replace(' ', '-')}.json"
    if not path.is_file():
        return {}
    rows = [Row(**row) for row in json.loads(path.read_text())]
    return {(row.case, row.processes): row for row in rows}


def main() -> int:
    """Tries, prints, keeps."""
    os.umask(0o022)
    # So that a runner that is told to go takes its server along.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    options = arguments()
    if options.list:
        for case in CASES:
            machine.say(case.name)
        return 0
    FAULTS.mkdir(parents=True, exist_ok=True)
    try:
        tables: dict[str, list[Row]] = {}
        if options.soak:
            return soak_all(options)
        if options.table:
            tables = {name: keep(name, []) for name in (OURS, PEER)}
        else:
            with machine.server_root(FAULTS, "mod_wsgi_rs-faults-") as root, alone(root):
                for subject in subjects(options, root):
                    tables[subject.name] = keep(subject.name, rows_of(subject, options))
    except (machine.Missing, OSError, subprocess.SubprocessError) as error:
        return machine.fail(error)
    except KeyboardInterrupt:
        return 130
    report("results", [*heading(), *side_by_side(tables), ""])
    return 0


if __name__ == "__main__":
    sys.exit(main())
