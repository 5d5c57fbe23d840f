"""What a request may cost against others, each a ratio of two figures of one run."""

from __future__ import annotations

from dataclasses import dataclass

from results import Place, Ratio, Results
from servers import DAEMON, EMBEDDED, PEER_DAEMON, PEER_EMBEDDED, STATIC, UWSGI, Server, ours
from servers import with_groups


@dataclass(frozen=True)
class Target:
    """One promise."""

    what: str
    against: str
    at_most: float
    figure: Place
    base: Place

    def reached(self, results: Results) -> Ratio | None:
        """The ratio; `None` if no pass has both figures."""
        return results.ratio(self.figure, self.base)


def taken(table: str, server: Server, figure: str = "cpu") -> Place:
    """A figure of a table."""
    return Place(table, server.name, figure)


def at(series: str, number: int, figure: str = "cpu") -> Place:
    """A figure of a series of ours."""
    return Place(f"{series} {number}", of(series, number).name, figure)


def of(series: str, number: int) -> Server:
    """Which server a series is measured with."""
    kinds = {"processes": ours, "groups": with_groups}
    return kinds[series](number) if series in kinds else DAEMON


def cpu(work: str, server: Server, base: Server, at_most: float) -> Target:
    """CPU time of a workload against another server's."""
    mode = "daemon" if server.processes else "embedded"
    return Target(f"{work}, {mode}", base.name, at_most, taken(work, server), taken(work, base))


DAEMON_CPU = (
    ("hello", 0.40), ("typical", 0.42), ("many headers", 0.42), ("POST 100 KB", 0.45),
    ("Flask", 0.45), ("Django", 0.50), ("generator 100 MB", 0.50), ("upload 50 MB", 0.40),
)
EMBEDDED_CPU = (("hello", 0.60), ("typical", 0.60), ("Flask", 0.80), ("Django", 0.85))

TARGETS = (
    *(cpu(work, DAEMON, PEER_DAEMON, most) for work, most in DAEMON_CPU),
    cpu("hello", DAEMON, PEER_EMBEDDED, 0.90),
    cpu("hello", DAEMON, UWSGI, 0.85),
    *(
        Target(
            f"hello, {number} processes", "own 1 process", 1.10,
            taken("hello", ours(number)), taken("hello", DAEMON),
        )
        for number in (2, 4)
    ),
    *(cpu(work, EMBEDDED, PEER_EMBEDDED, most) for work, most in EMBEDDED_CPU),
    cpu("file 100 MB", DAEMON, STATIC, 1.15),
    Target(
        "p50 of hello, one client", PEER_DAEMON.name, 0.50,
        taken("one client", DAEMON, "p50"), taken("one client", PEER_DAEMON, "p50"),
    ),
    Target(
        "p99 of hello, twice the threads", PEER_DAEMON.name, 0.50,
        taken("twice the threads", DAEMON, "p99"), taken("twice the threads", PEER_DAEMON, "p99"),
    ),
    Target(
        "start to first answer", PEER_DAEMON.name, 0.70,
        taken("start", DAEMON, "start"), taken("start", PEER_DAEMON, "start"),
    ),
    Target(
        "private memory, idle daemon process", PEER_DAEMON.name, 0.70,
        taken("standing", DAEMON, "daemon"), taken("standing", PEER_DAEMON, "daemon"),
    ),
    Target(
        "private memory, httpd child", PEER_DAEMON.name, 0.70,
        taken("standing", DAEMON, "child"), taken("standing", PEER_DAEMON, "child"),
    ),
    Target(
        "hello, 1,000 groups", "own 1 group", 1.05, at("groups", 1000), at("groups", 1),
    ),
)
