"""What the servers are asked to do, and what is measured of it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import load
from load import Requests
from servers import EMBEDDED, GRANIAN, GUNICORN, PEER_DAEMON, PEER_EMBEDDED, STATIC, THREADS
from servers import DAEMON, UWSGI, ALL, Running, Server, ours

Figures = dict[str, float]
BROWSER = tuple(
    f"X-Request-Header-{number}: a value as long as those that browsers send" for number in range(40)
)
# The kernel counts CPU time in hundredths of a second.
DOWNLOADS = 10
ONE_PROCESS = (
    EMBEDDED, DAEMON, PEER_EMBEDDED, PEER_DAEMON, UWSGI, GUNICORN, GRANIAN,
)


@dataclass(frozen=True)
class Workload:
    """One column of the table."""

    name: str
    # What httpd serves as a file for comparison; empty if there is nothing alike.
    static: str
    servers: tuple[Server, ...]
    measure: Callable[[Running, str, float], Figures]
    path: str
    # What the CPU figure is: "µs" a request, or "ms" a transfer.
    unit: str = "µs"

    def run(self, running: Running, seconds: float) -> Figures:
        """One measurement, warmed up."""
        path = self.static if running.server == STATIC else self.path
        return self.measure(running, path, seconds)


def small(**shape: object) -> Callable[[Running, str, float], Figures]:
    """Measures small requests of this shape."""

    def measure(running: Running, path: str, seconds: float) -> Figures:
        requests = Requests(path, **shape)
        running.get(path) if not requests.body else None
        load.wrk(running, requests, 1) if seconds > 1 else None
        before = running.cpu()
        seen = load.wrk(running, requests, seconds)
        used = running.cpu() - before
        return {"cpu": used / seen["requests"] * 1e6, **{k: seen[k] for k in ("rate", "p50", "p99")}}

    return measure


def large(send: Callable[[Running, str], float]) -> Callable[[Running, str, float], Figures]:
    """Measures large transfers, one after the other."""

    def measure(running: Running, path: str, _seconds: float) -> Figures:
        send(running, path)
        before = running.cpu()
        began = time.monotonic()
        for _ in range(DOWNLOADS):
            send(running, path)
        took = time.monotonic() - began
        used = running.cpu() - before
        return {"cpu": used / DOWNLOADS * 1e3, "rate": DOWNLOADS / took}

    return measure


TOO = (STATIC, *ONE_PROCESS)
HELLO = (*TOO, ours(2), ours(4), ALL[7])
CLOSE = ("Connection: close",)
CLIENTS = 2 * THREADS

WORKLOADS = (
    Workload("hello", "/static/hello", HELLO, small(), "/app/hello"),
    Workload("typical", "/static/typical", TOO, small(), "/app/typical"),
    Workload("many headers", "/static/hello", TOO, small(headers=BROWSER), "/app/hello"),
    Workload("POST 100 KB", "", ONE_PROCESS, small(body=100 * 1024), "/app/upload"),
    Workload("Flask", "", ONE_PROCESS, small(), "/app/flask"),
    Workload("Django", "", ONE_PROCESS, small(), "/app/django"),
    Workload("1,000 chunks", "", ONE_PROCESS, small(), "/app/chunks"),
    Workload("new connection", "/static/hello", TOO, small(headers=CLOSE), "/app/hello"),
    Workload("50 ms of sleep", "", ONE_PROCESS, small(connections=64), "/app/sleep"),
    Workload("one client", "/static/hello", TOO, small(connections=1), "/app/hello"),
    Workload(
        "twice the threads", "/static/hello", TOO, small(connections=CLIENTS), "/app/hello"
    ),
    Workload("file 100 MB", "/static/large", TOO, large(load.download), "/app/file", "ms"),
    Workload("generator 100 MB", "", ONE_PROCESS, large(load.download), "/app/generator", "ms"),
    Workload("upload 50 MB", "", ONE_PROCESS, large(load.upload), "/app/upload", "ms"),
)
