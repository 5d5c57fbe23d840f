"""The soak: a thousand graceful restarts with mod_ssl, and what grows meanwhile."""

from __future__ import annotations

import contextlib
import ctypes
import re
import shutil
import signal
import statistics
import struct
import subprocess
import time
from dataclasses import dataclass, fields
from pathlib import Path

from clients import Clients, Load, Record
from server import SUPERVISOR, Httpd, Missing, Settings, Subject, machine, running

# A little load, half of it over TLS.
LIGHT = [[Clients("fast", 1, pause=0.05), Clients("static", 1, pause=0.05)]]
POINTS = 10
PATIENCE = 20.0
# More than this, from the first point to the last, is not noise: of memory in KiB, and of
# what is counted.
MOST_MEMORY = 1024
MOST_COUNT = 2
# The entries of glibc's table of thread-specific keys: a number, odd while the key is in
# use, and its destructor.
KEY = struct.Struct("QQ")
MOST_KEYS = 1024


@dataclass(frozen=True)
class Sample:
    """What one process holds."""

    rss: int
    pss: int
    private: int
    descriptors: int
    threads: int
    # Regions of memory.
    regions: int
    # Of thread-specific data; -1 where they cannot be counted.
    keys: int

    @staticmethod
    def of(pid: int) -> Sample:
        """Looks at a process; memory in KiB."""
        proc = Path(f"/proc/{pid}")
        rollup = (proc / "smaps_rollup").read_text()
        sizes = {name: int(kb) for name, kb in re.findall(r"^(\w+):\s+(\d+) kB", rollup, re.M)}
        threads = re.search(r"^Threads:\s+(\d+)", (proc / "status").read_text(), re.M)
        return Sample(
            sizes["Rss"],
            sizes["Pss"],
            sizes["Private_Clean"] + sizes["Private_Dirty"],
            len(list((proc / "fd").iterdir())),
            int(threads[1]),
            len((proc / "maps").read_text().splitlines()),
            keys_of(pid),
        )


def keys_of(pid: int) -> int:
    """How many thread-specific keys a process has; it may have 1,024."""
    try:
        table = ctypes.addressof(ctypes.c_char.in_dll(ctypes.CDLL(None), "__pthread_keys"))
    except ValueError:
        return -1
    library, base = library_at("self", table)
    for name, theirs in libraries_of(pid):
        if name == library:
            with contextlib.suppress(OSError), open(f"/proc/{pid}/mem", "rb", 0) as memory:
                memory.seek(theirs + table - base)
                content = memory.read(KEY.size * MOST_KEYS)
                return sum(number & 1 for number, _ in KEY.iter_unpack(content))
    return -1


def libraries_of(pid: int | str) -> list[tuple[str, int]]:
    """The files a process has mapped from their beginning, and where."""
    found = []
    for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
        place, _, offset, _, _, *name = line.split(maxsplit=5)
        if name and int(offset, 16) == 0:
            found.append((name[0], int(place.partition("-")[0], 16)))
    return found


def library_at(pid: int | str, address: int) -> tuple[str, int]:
    """The file that is mapped last below an address, and where."""
    below = [entry for entry in libraries_of(pid) if entry[1] <= address]
    return max(below, key=lambda entry: entry[1])


def make_certificate(folder: Path) -> None:
    """A certificate nobody else has signed."""
    if not shutil.which("openssl"):
        raise Missing("openssl is not here: the soak needs it for a certificate")
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"]
    command += ["-subj", "/CN=localhost", "-keyout", "key.pem", "-out", "cert.pem"]
    subprocess.run(command, cwd=folder, check=True, capture_output=True)


def settle(httpd: Httpd) -> dict[str, int]:
    """Waits until the processes of earlier configurations are gone; one of each sort."""

    def is_quiet() -> bool:
        # As many as `StartServers` and `processes` say.
        return len(httpd.children()) <= 2 and len(httpd.daemons()) == 1

    machine.wait_until(is_quiet, PATIENCE)
    # What has just been started is still filling up.
    time.sleep(1)
    found = {"parent": httpd.leader, "child": min(httpd.children())}
    found |= {"supervisor": pid for pid in httpd.titled(SUPERVISOR)}
    return found | {"daemon process": pid for pid in httpd.daemons()}


def samples_of(httpd: Httpd) -> dict[str, Sample]:
    """Looks at one process of each sort."""
    return {name: Sample.of(pid) for name, pid in settle(httpd).items()}


def soak(subject: Subject, restarts: int) -> list[str]:
    """Restarts again and again; a table of what grew."""
    make_certificate(subject.root / "tls")
    points: list[tuple[int, dict[str, Sample]]] = []
    with running(subject, Settings(1, tls=True)) as httpd:
        loads = [Load(httpd.port, "plain", LIGHT), Load(httpd.tls_port, "tls", LIGHT, tls=True)]
        try:
            began = time.monotonic()
            for number in range(1, restarts + 1):
                old = httpd.daemons()
                httpd.reload(signal.SIGUSR1)
                # A restart is over when it has brought a new process.
                machine.wait_until(lambda old=old: set(httpd.daemons()) - set(old), PATIENCE)
                if number % max(1, restarts // POINTS) == 0:
                    points.append((number, samples_of(httpd)))
                    machine.say(f"  {number} restarts, {time.monotonic() - began:.0f} s")
            took = time.monotonic() - began
            records = [record for load in loads for record in load.stop().records]
        finally:
            for load in loads:
                load.kill()
    return [summary(restarts, took, records), "", *table(points)]


def summary(restarts: int, took: float, records: list[Record]) -> str:
    """What the clients saw."""
    failed = sum(not record.is_good for record in records)
    retried = sum(len(record.names) > 1 for record in records)
    slowest = max(record.beyond for record in records)
    return (
        f"{restarts} graceful restarts in {took:.0f} s: {len(records)} requests, {failed} failed, "
        f"{retried} repeated on a new connection, the latest answer {slowest * 1e3:.0f} ms late."
    )


def table(points: list[tuple[int, dict[str, Sample]]]) -> list[str]:
    """The points of each sort of process, and how the last ones differ from the first."""
    names = [field.name for field in fields(Sample)]
    lines = [
        "| process | after restarts | RSS KiB | PSS KiB | private KiB | descriptors | threads "
        "| regions | pthread keys |",
        "|---|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for process in points[0][1]:
        series = [(number, found[process]) for number, found in points if process in found]
        for number, sample in series:
            cells = " | ".join(str(getattr(sample, name)) for name in names)
            lines.append(f"| {process} | {number} | {cells} |")
        growth = [grown(name, [sample for _, sample in series]) for name in names]
        lines.append(f"| **{process}** | **growth** | {' | '.join(f'{g:+d}' for g in growth)} |")
        limits = [MOST_MEMORY] * 3 + [MOST_COUNT] * 4
        wrong = [n for n, g, most in zip(names, growth, limits) if g > most]
        if wrong:
            lines.append(f"| **{process}** | **grew: {', '.join(wrong)}** |" + " |" * 7)
    return lines


def grown(name: str, samples: list[Sample]) -> int:
    """The difference between the middle one of the last three points and of the first."""
    values = [getattr(sample, name) for sample in samples]
    return round(statistics.median(values[-3:]) - statistics.median(values[:3]))
