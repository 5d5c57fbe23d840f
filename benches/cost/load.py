"""The clients: wrk for small requests, one connection of our own for large ones."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from servers import FILE_SIZE, Missing, Running

UPLOAD_SIZE = 50 * 2**20
MILLISECONDS = {"us": 1e-3, "ms": 1.0, "s": 1e3}


@dataclass(frozen=True)
class Requests:
    """What wrk asks for."""

    path: str
    connections: int = 8
    headers: tuple[str, ...] = ()
    # A POST with a body of so many bytes.
    body: int = 0


@dataclass(frozen=True)
class Transfers:
    """Large bodies one way or the other, one after the other."""

    path: str
    send: Callable[[Running, str], float]


def wrk(running: Running, requests: Requests, seconds: float) -> dict[str, float]:
    """Runs wrk for about that long and reads its report."""
    command: list[object] = ["wrk", "--latency", "-t1", f"-c{requests.connections}"]
    command += [f"-d{max(1, round(seconds))}s", "--timeout", "20s"]
    for header in requests.headers:
        command += ["-H", header]
    if requests.body:
        script = running.root / "post.lua"
        script.write_text(
            'wrk.method = "POST"\n'
            f'wrk.body = string.rep("x", {requests.body})\n'
            'wrk.headers["Content-Type"] = "application/octet-stream"\n'
        )
        command += ["-s", script]
    command.append(running.url(requests.path))
    report = subprocess.run(
        command, check=True, capture_output=True, text=True, timeout=seconds + 60
    ).stdout
    return read_report(running, requests, report)


def read_report(running: Running, requests: Requests, report: str) -> dict[str, float]:
    """The figures in what wrk says; anything but an answer is a fault."""
    what = f"{running.server.name}, {requests.path}"
    # A server that closes a kept connection before it said so is seen as an error of
    # reading; more than a few are no accident.
    errors = re.search(r"Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)", report)
    count = re.search(r"(\d+) requests in ([\d.]+)(ms|s|m)", report)
    wrong = sum(map(int, errors.groups())) if errors else 0
    if "Non-2xx" in report or not count or int(count.group(1)) == 0:
        raise Missing(f"not every request was answered: {what}\n{report}")
    if wrong > max(10, int(count.group(1)) // 100):
        raise Missing(f"connections failed: {what}\n{report}")
    figures = {
        "requests": float(count.group(1)),
        "rate": float(re.search(r"Requests/sec:\s+([\d.]+)", report).group(1)),
    }
    for name in ("50", "99"):
        value, unit = re.search(rf"^\s+{name}%\s+([\d.]+)(us|ms|s)", report, re.M).groups()
        figures[f"p{name}"] = float(value) * MILLISECONDS[unit]
    return figures


def transfer(running: Running, head: str, body: Iterable[bytes] = ()) -> int:
    """Sends a request, throws the answer away as cheaply as a client can; its length."""
    buffer = bytearray(2**20)
    received = 0
    with socket.create_connection(("127.0.0.1", running.port), 60) as connection:
        connection.sendall(f"{head}\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
        for piece in body:
            connection.sendall(piece)
        first = connection.recv(2**16)
        if b" 200 " not in first[:16]:
            raise Missing(f"{running.server.name}: {head}: {first[:60]!r}")
        received += len(first)
        while count := connection.recv_into(buffer):
            received += count
    return received


def download(running: Running, path: str) -> float:
    """Reads the large file; how long that took."""
    began = time.monotonic()
    received = transfer(running, f"GET {path} HTTP/1.1")
    if received < FILE_SIZE:
        raise Missing(f"{running.server.name}, {path}: only {received} bytes came")
    return time.monotonic() - began


PIECE = os.urandom(2**20)


def upload(running: Running, path: str) -> float:
    """Sends a large body; how long that took."""
    began = time.monotonic()
    head = f"POST {path} HTTP/1.1\r\nContent-Length: {UPLOAD_SIZE}"
    transfer(running, head, (PIECE for _ in range(UPLOAD_SIZE // len(PIECE))))
    return time.monotonic() - began


def memory(pid: int) -> dict[str, float]:
    """What a process holds, in MB."""
    try:
        rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except OSError:
        return {"rss": 0.0, "pss": 0.0, "private": 0.0}
    kilobytes = {name: int(size) for name, size in re.findall(r"^(\w+):\s+(\d+) kB", rollup, re.M)}
    private = kilobytes["Private_Clean"] + kilobytes["Private_Dirty"]
    return {
        "rss": kilobytes["Rss"] / 1024,
        "pss": kilobytes["Pss"] / 1024,
        "private": private / 1024,
    }
