"""How the cost grows, what a server holds, and how long it takes to be there."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import load
from load import Requests
from servers import DAEMON, GRANIAN, GUNICORN, PEER_DAEMON, STATIC, UWSGI, WORKERS
from servers import Missing, Running, Server, Setup, machine, ours, peer, running, with_groups
from workloads import TOO, Figures, small, warm

# What a thousand idle Pythons may take of the machine's memory, in MB each.
GROUP_SIZE = 8
IDLE = Requests("/app/hello")


@dataclass(frozen=True)
class Point:
    """One measurement of a series."""

    server: Server
    # The number it is measured at.
    at: int
    # Further configuration of the module.
    more: str = ""
    # What is asked for.
    requests: Requests = IDLE


@dataclass(frozen=True)
class Series:
    """A figure that is measured at several numbers."""

    name: str
    what: str
    points: tuple[Point, ...]
    # Whether all its servers run at a time and are measured in passes: what is looked for
    # is smaller than what a machine changes from one minute to the next.
    side_by_side: bool = False


def processes() -> Series:
    """CPU with more daemon processes."""
    numbers = (1, 2, 4, 8)
    return Series(
        "processes", "daemon processes",
        tuple(Point(of(number), number) for number in numbers for of in (ours, peer)),
    )


def clients() -> Series:
    """CPU with more clients at a time."""
    numbers = (1, 2, 4, 8, 16, 32, 64, 128, 256)
    return Series(
        "clients", "concurrent clients",
        tuple(
            Point(server, number, requests=Requests("/app/hello", number))
            for number in numbers
            for server in (DAEMON, PEER_DAEMON)
        ),
    )


def headers() -> Series:
    """CPU with more request headers."""
    numbers = (10, 25, 50, 100)
    return Series(
        "headers", "request headers",
        tuple(
            Point(server, number, requests=Requests("/app/hello", headers=fields(number)))
            for number in numbers
            for server in (DAEMON, PEER_DAEMON)
        ),
    )


def fields(number: int) -> tuple[str, ...]:
    """So many request headers."""
    return tuple(f"X-Header-{at}: the value of header {at}" for at in range(number - 1))


def groups(quick: bool) -> Series:
    """CPU with more process groups beside the one that is asked."""
    numbers = (1, 10, 100) if quick else (1, 10, 100, 1000)
    room = available() // 2
    return Series(
        "groups", "configured process groups",
        tuple(
            Point(with_groups(number), number, "".join(map(group, range(1, number))))
            for number in numbers
            if number * GROUP_SIZE < room
        ),
        side_by_side=True,
    )


def group(number: int) -> str:
    """The line that configures one more process group."""
    return (
        f"WSGIDaemonProcess more-{number} processes=1 threads=1 user=${{SITE_USER}} "
        "group=${SITE_GROUP} home=${ROOT} python-home=${PYTHON_HOME}\n"
    )


def available() -> int:
    """The memory nobody uses, in MB."""
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) // 1024
    return 0


def all_series(quick: bool) -> tuple[Series, ...]:
    """Every series."""
    return processes(), clients(), headers(), groups(quick)


def measure(setup: Setup, point: Point) -> Figures:
    """One measurement of a series, on a server of its own."""
    options = setup.options
    with ready(setup, point) as server:
        # It has one figure a round, so that takes as long as all passes of a workload.
        return small(server, point.requests, options.seconds * options.passes)


@contextlib.contextmanager
def ready(setup: Setup, point: Point) -> Iterator[Running]:
    """The server of a point, warmed up."""
    # httpd closes kept connections when all its threads are busy.
    workers = max(WORKERS, point.requests.connections + 20)
    with running(setup, point.server, point.more, workers) as server:
        if point.more:
            settle(server)
        warm(server, point.requests, setup.options.warm)
        yield server


def settle(server: Running) -> None:
    """Waits until the processes of all groups have started, which takes CPU time, and for
    what the kernel does afterwards."""
    last = -1.0
    quiet = 0
    deadline = time.monotonic() + 300
    while quiet < 10 and time.monotonic() < deadline:
        used = server.cpu()
        quiet = quiet + 1 if used - last < 0.05 else 0
        last = used
        time.sleep(1)


# What a server holds and how long it takes, by name of the figure.
STANDING = TOO


def start(setup: Setup, server: Server) -> Figures:
    """How long one start takes to the first answer."""
    with running(setup, server) as it:
        return {"start": it.start * 1e3}


def standing(setup: Setup, server: Server) -> Figures:
    """The figures of one server at rest: memory, reload."""
    with running(setup, server) as it:
        figures = idle_memory(it)
        if server.kind in setup.modules and server.processes:
            figures["reload"] = reload(it) * 1e3
    return figures


def serving(it: Running) -> set[int]:
    """The processes that run the application, as far as they are met."""
    if it.server == STATIC:
        return set()
    return {int(it.get("/app/pid")) for _ in range(8)}


def idle_memory(it: Running) -> Figures:
    """What one process with the application, one child of httpd, and all together hold."""
    inside = serving(it)
    family = it.family()
    child = max(
        (pid for pid in family if pid not in it.leaders and pid not in inside),
        key=threads, default=0,
    )
    figures: Figures = {"all": sum(load.memory(pid)["pss"] for pid in family)}
    if inside and it.server.processes:
        figures["daemon"] = load.memory(min(inside))["private"]
    if it.server.processes or it.server == STATIC:
        figures["child"] = load.memory(child)["private"]
    return figures


def threads(pid: int) -> int:
    """How many threads a process has: only httpd's children have dozens."""
    with contextlib.suppress(OSError):
        return len(os.listdir(f"/proc/{pid}/task"))
    return 0


def reload(it: Running) -> float:
    """From the change of the script to the first answer of another process, in seconds."""
    before = serving(it)
    script = it.root / "site" / "app.py"
    # mod_wsgi compares whole seconds.
    later = script.stat().st_mtime + 2
    os.utime(script, (later, later))
    began = time.monotonic()
    changed = machine.wait_until(lambda: int(it.get("/app/pid")) not in before, 30, 0.001)
    if not changed:
        raise Missing(f"{it.server.name}: the script changed and the process did not")
    return time.monotonic() - began


DJANGO = (
    ours(4), peer(4),
    *(Server(server.name, server.kind, 4) for server in (UWSGI, GUNICORN, GRANIAN)),
)


def four_processes(setup: Setup, server: Server) -> Figures:
    """What four processes hold that have all answered by Django."""
    with running(setup, server) as it:
        seen: set[int] = set()

        def met() -> bool:
            # Many at a time, so that no process is left out.
            load.wrk(it, Requests("/app/django", 64), 1)
            seen.update(pid for pid in it.family() if load.memory(pid)["private"] > 12)
            return len(seen) >= server.processes

        machine.wait_until(met, 10)
        held = [load.memory(pid) for pid in it.family()]
    return {name: sum(process[name] for process in held) for name in ("rss", "pss", "private")}
