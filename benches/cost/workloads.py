"""What the servers are asked to do, and what is measured of it."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace

import load
from load import Requests, Transfers
from servers import EMBEDDED, GRANIAN, GUNICORN, PEER_DAEMON, PEER_EMBEDDED, STATIC, THREADS
from servers import DAEMON, UWSGI, Running, Server, ours, peer

Figures = dict[str, float]
BROWSER = tuple(
    f"X-Request-Header-{number}: a value as long as those that browsers send" for number in range(40)
)
# So many make one figure.
TRANSFERS = 10
# In the order they are measured in: what is compared with each other stands together.
ONE_PROCESS = (
    EMBEDDED, PEER_EMBEDDED, DAEMON, PEER_DAEMON, UWSGI, GUNICORN, GRANIAN,
)


@dataclass(frozen=True)
class Workload:
    """One column of the table."""

    name: str
    # What httpd serves as a file for comparison; empty if there is nothing alike.
    static: str
    servers: tuple[Server, ...]
    asked: Requests | Transfers

    @property
    def unit(self) -> str:
        """What the CPU figure is: "µs" a request, or "ms" a transfer."""
        return "µs" if isinstance(self.asked, Requests) else "ms"

    def passes(self, wanted: int) -> int:
        """How many figures a round gives; what transfers much is steady by itself."""
        return wanted if isinstance(self.asked, Requests) else 1

    def of(self, running: Running) -> Requests | Transfers:
        """What this server is asked."""
        return replace(self.asked, path=self.static) if running.server == STATIC else self.asked

    def warm(self, running: Running, seconds: float) -> None:
        """Has the server do it before anybody counts."""
        warm(running, self.of(running), seconds)

    def run(self, running: Running, seconds: float) -> Figures:
        """One measurement of a server that is warm."""
        asked = self.of(running)
        if isinstance(asked, Requests):
            return small(running, asked, seconds)
        return large(running, asked)


def warm(running: Running, asked: Requests | Transfers, seconds: float) -> None:
    """Asks the first time, which takes longer: modules are imported, pages touched."""
    if isinstance(asked, Transfers):
        asked.send(running, asked.path)
        return
    if not asked.body:
        running.get(asked.path)
    if seconds:
        load.wrk(running, asked, seconds)


def small(running: Running, asked: Requests, seconds: float) -> Figures:
    """Measures small requests for so long."""
    before = running.cpu()
    seen = load.wrk(running, asked, seconds)
    used = running.cpu() - before
    return {"cpu": used / seen["requests"] * 1e6, **{k: seen[k] for k in ("rate", "p50", "p99")}}


def large(running: Running, asked: Transfers) -> Figures:
    """Measures large transfers, one after the other."""
    before = running.cpu()
    began = time.monotonic()
    for _ in range(TRANSFERS):
        asked.send(running, asked.path)
    took = time.monotonic() - began
    used = running.cpu() - before
    return {"cpu": used / TRANSFERS * 1e3, "rate": TRANSFERS / took}


TOO = (STATIC, *ONE_PROCESS)
HELLO = (
    STATIC, EMBEDDED, PEER_EMBEDDED, ours(4), DAEMON, ours(2), PEER_DAEMON, peer(2),
    UWSGI, GUNICORN, GRANIAN,
)
CLOSE = ("Connection: close",)
CLIENTS = 2 * THREADS

WORKLOADS = (
    Workload("hello", "/static/hello", HELLO, Requests("/app/hello")),
    Workload("typical", "/static/typical", TOO, Requests("/app/typical")),
    Workload("many headers", "/static/hello", TOO, Requests("/app/hello", headers=BROWSER)),
    Workload("POST 100 KB", "", ONE_PROCESS, Requests("/app/upload", body=100 * 1024)),
    Workload("Flask", "", ONE_PROCESS, Requests("/app/flask")),
    Workload("Django", "", ONE_PROCESS, Requests("/app/django")),
    Workload("1,000 chunks", "", ONE_PROCESS, Requests("/app/chunks")),
    Workload("new connection", "/static/hello", TOO, Requests("/app/hello", headers=CLOSE)),
    Workload("50 ms of sleep", "", ONE_PROCESS, Requests("/app/sleep", connections=64)),
    Workload("one client", "/static/hello", TOO, Requests("/app/hello", connections=1)),
    Workload("twice the threads", "/static/hello", TOO, Requests("/app/hello", CLIENTS)),
    Workload("file 100 MB", "/static/large", TOO, Transfers("/app/file", load.download)),
    Workload(
        "generator 100 MB", "", ONE_PROCESS, Transfers("/app/generator", load.download)
    ),
    Workload("upload 50 MB", "", ONE_PROCESS, Transfers("/app/upload", load.upload)),
)
