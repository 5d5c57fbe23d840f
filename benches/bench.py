"""Compares this module with mod_wsgi: same httpd, same Python, interleaved rounds.

Each measurement starts a private httpd (event MPM), warms it up, loads it with wrk for
a few seconds and reads what all its processes used from /proc.  The first column is the
CPU time per request of all server processes: on a machine that also runs the client it
is the figure that other load disturbs least.  Medians over the rounds are printed as a
Markdown table and kept in target/bench.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import platform
import re
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "examples"))

import machine  # noqa: E402 - it lies in examples/
from machine import Missing, Python, say  # noqa: E402

BENCH = machine.REPOSITORY / "target" / "bench"
PEER = "mod_wsgi==6.1.1"
TICK = os.sysconf("SC_CLK_TCK")
FILE_SIZE = 100 * 1024 * 1024
FILE_DOWNLOADS = 10


@dataclass(frozen=True)
class Variant:
    """One row of a table: who answers, and where the application runs."""

    name: str
    module: str
    processes: int


FLOOR = Variant("httpd, empty 204", "", 0)
STATIC = Variant("httpd, static file", "", 0)
VARIANTS = (
    FLOOR,
    STATIC,
    Variant("mod_wsgi 6.1.1, embedded", "peer", 0),
    Variant("mod_wsgi_rs, embedded", "ours", 0),
    Variant("mod_wsgi 6.1.1, daemon, 1 process", "peer", 1),
    Variant("mod_wsgi_rs, daemon, 1 process", "ours", 1),
    Variant("mod_wsgi 6.1.1, daemon, 2 processes", "peer", 2),
    Variant("mod_wsgi_rs, daemon, 2 processes", "ours", 2),
)
# The rows that differ for a file: more processes do not make one download cheaper.
FILE_VARIANTS = (STATIC, *(row for row in VARIANTS if row.module and row.processes < 2))


@dataclass
class Usage:
    """What the processes of one httpd used so far, in seconds, and hold, in bytes."""

    cpu: float
    rss: int
    pss: int


@dataclass
class Results:
    """The measured figures of one variant, a list per column."""

    columns: dict[str, list[float]] = field(default_factory=dict)

    def add(self, **figures: float) -> None:
        """Keeps the figures of one round."""
        for name, figure in figures.items():
            self.columns.setdefault(name, []).append(figure)

    def median(self, name: str) -> float:
        """The middle of what the rounds gave."""
        return statistics.median(self.columns[name])


@dataclass
class Setup:
    """What all measurements share."""

    root: Path
    modules: dict[str, Path]
    python: Python
    python_home: str
    options: argparse.Namespace


def arguments() -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=5, help="load per measurement")
    parser.add_argument("--connections", type=int, default=8)
    parser.add_argument("--quick", action="store_true", help="2 rounds of 2 seconds")
    parser.add_argument("--module", default="target/release/mod_wsgi_rs.so")
    options = parser.parse_args()
    if options.quick:
        options.rounds, options.seconds = 2, 2
    options.rounds = max(1, min(options.rounds, 20))
    options.seconds = max(1, min(options.seconds, 30))
    return options


def peer_module(python: Python) -> Path:
    """Builds mod_wsgi from PyPI into target/bench, once."""
    venv = BENCH / "venv"
    stamp = venv / "made-for"
    wanted = f"{PEER} {python.executable} {python.name}"
    if not stamp.is_file() or stamp.read_text() != wanted:
        say(f"Building {PEER} for Python {python.name} ...")
        shutil.rmtree(venv, ignore_errors=True)
        subprocess.run([python.executable, "-m", "venv", venv], check=True)
        # The build asks the first python3.x-config of the path which library to
        # link: it has to be this Python's, not a version manager's.
        path = f"{Path(python.executable).parent}:/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin"
        environment = {**os.environ, "PATH": path}
        pip = [venv / "bin" / "python", "-m", "pip", "install", "--quiet"]
        pip += ["--disable-pip-version-check", "--no-cache-dir", PEER]
        subprocess.run(pip, check=True, env=environment)
        stamp.write_text(wanted)
    built = list(venv.glob("lib*/python3.*/site-packages/mod_wsgi/server/*.so"))
    if not built:
        raise Missing("mod_wsgi was installed, but its module is not where it should be")
    return built[0]


def prepare(options: argparse.Namespace, root: Path) -> Setup:
    """Makes the server root with both modules and what they serve."""
    ours = machine.REPOSITORY / options.module
    if not ours.is_file():
        raise Missing(f"{ours} is not there: run `make` first")
    python = machine.choose_python()
    home = python.prefix
    if os.getuid() == 0 and not machine.readable_by_all(home):
        home = machine.copy_python(python, root).prefix
    peer = peer_module(python)
    for folder in ("run", "logs", "static", "modules"):
        (root / folder).mkdir(exist_ok=True)
    modules = {}
    for name, source in (("ours", ours), ("peer", peer)):
        modules[name] = root / "modules" / source.name
        modules[name].unlink(missing_ok=True)
        shutil.copy(source, modules[name])
    for half in ours.parent.glob("wsgi_python.*.so"):
        (root / "modules" / half.name).unlink(missing_ok=True)
        shutil.copy(half, root / "modules")
    shutil.copy(HERE / "bench.conf", root)
    shutil.copy(HERE / "app.wsgi", root)
    (root / "static" / "hello").write_text("Hello, world!")
    with open(root / "static" / "large", "wb") as large:
        # Written, not left as a hole: a hole would be read from nowhere.
        for _ in range(FILE_SIZE // 2**20):
            large.write(os.urandom(2**20))
    machine.make_readable(root)
    return Setup(root, modules, python, home, options)


def configuration(setup: Setup, variant: Variant, port: int) -> Path:
    """Writes httpd.conf for one variant: the values for the names in bench.conf."""
    httpd_account, site_account = machine.accounts()
    values = {
        "ROOT": setup.root,
        "PORT": port,
        "MODULES": machine.httpd_modules(),
        "PYTHON_HOME": setup.python_home,
        "HTTPD_USER": httpd_account.user,
        "HTTPD_GROUP": httpd_account.group,
        "SITE_USER": site_account.user,
        "SITE_GROUP": site_account.group,
    }
    if variant.module:
        values["WSGI_MODULE"] = setup.modules[variant.module]
    if variant.processes:
        values["PROCESSES"] = variant.processes
    return machine.write_defines(setup.root / "httpd.conf", values, setup.root / "bench.conf")


@contextlib.contextmanager
def httpd(setup: Setup, variant: Variant) -> Iterator[tuple[int, int]]:
    """A running httpd: its process id and its port."""
    port = machine.free_port(8600)
    log = setup.root / "logs" / "error.log"
    log.unlink(missing_ok=True)
    command = machine.with_family(
        [machine.httpd(), "-f", configuration(setup, variant, port), "-D", "FOREGROUND"]
    )
    process = subprocess.Popen(command, start_new_session=True)
    try:
        if not machine.wait_until(lambda: answers(port) or process.poll() is not None, 20):
            raise Missing(f"{variant.name}: no answer within 20 s")
        if process.poll() is not None:
            raise Missing(f"{variant.name}: httpd ended\n{log.read_text() if log.exists() else ''}")
        yield process.pid, port
    finally:
        end(process)


def answers(port: int) -> bool:
    """Whether somebody listens."""
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
        return True
    return False


def end(process: subprocess.Popen) -> None:
    """Stops httpd; whatever of it does not go is killed."""
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
    machine.wait_until(lambda: process.poll() is not None, 20)
    machine.wait_until(lambda: not machine.family_of(process.pid), 10)
    for pid in machine.family_of(process.pid):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    process.wait(10)


def usage(leader: int) -> Usage:
    """Adds up what `leader` and all it started used, the ended ones included."""
    total = Usage(0.0, 0, 0)
    for pid in machine.family_of(leader):
        with contextlib.suppress(OSError):
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            # utime, stime, and cutime, cstime: those of children waited for.
            total.cpu += sum(map(int, fields[11:15])) / TICK
            rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
            total.rss += int(re.search(r"^Rss:\s+(\d+)", rollup, re.M).group(1)) * 1024
            total.pss += int(re.search(r"^Pss:\s+(\d+)", rollup, re.M).group(1)) * 1024
    return total


def load(url: str, connections: int, seconds: int) -> dict[str, float]:
    """Runs wrk and reads its report."""
    command = ["wrk", "--latency", "-t1", f"-c{connections}", f"-d{seconds}s", url]
    report = subprocess.run(
        command, check=True, capture_output=True, text=True, timeout=seconds + 30
    ).stdout
    if "Non-2xx" in report or "Socket errors" in report:
        raise Missing(f"not every request of {url} was answered:\n{report}")
    count = re.search(r"(\d+) requests in", report)
    rate = re.search(r"Requests/sec:\s+([\d.]+)", report)
    if count.group(1) == "0":
        raise Missing(f"no request of {url} was answered:\n{report}")
    figures = {"requests": float(count.group(1)), "rate": float(rate.group(1))}
    units = {"us": 1e-3, "ms": 1.0, "s": 1e3}
    for name in ("50", "99"):
        value, unit = re.search(rf"^\s+{name}%\s+([\d.]+)(us|ms|s)", report, re.M).groups()
        figures[f"p{name}"] = float(value) * units[unit]
    return figures


def measure_requests(setup: Setup, variant: Variant) -> dict[str, float]:
    """One round of small requests over kept connections."""
    with httpd(setup, variant) as (leader, port):
        path = "app" if variant.module else "nothing" if variant is FLOOR else "static/hello"
        url = f"http://127.0.0.1:{port}/{path}"
        load(url, setup.options.connections, 1)
        before = usage(leader)
        seen = load(url, setup.options.connections, setup.options.seconds)
        after = usage(leader)
    return {
        "cpu": (after.cpu - before.cpu) / seen["requests"] * 1e6,
        "rate": seen["rate"],
        "p50": seen["p50"],
        "p99": seen["p99"],
        "rss": after.rss / 2**20,
        "pss": after.pss / 2**20,
    }


def download(port: int, path: str) -> None:
    """Reads the large file and throws it away, as cheaply as a client can."""
    buffer = bytearray(2**20)
    with socket.create_connection(("127.0.0.1", port), 60) as connection:
        request = f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
        connection.sendall(request.encode())
        received = 0
        while count := connection.recv_into(buffer):
            received += count
    if received < FILE_SIZE:
        raise Missing(f"{path}: only {received} bytes came")


def measure_file(setup: Setup, variant: Variant) -> dict[str, float]:
    """One round of large downloads."""
    with httpd(setup, variant) as (leader, port):
        path = "/app/large" if variant.module else "/static/large"
        download(port, path)
        before = usage(leader)
        began = time.monotonic()
        for _ in range(FILE_DOWNLOADS):
            download(port, path)
        took = time.monotonic() - began
        after = usage(leader)
    volume = FILE_DOWNLOADS * FILE_SIZE
    return {
        "cpu": (after.cpu - before.cpu) / FILE_DOWNLOADS * 1e3,
        "rate": volume / took / 2**20,
    }


Measure = Callable[[Setup, Variant], dict[str, float]]


def rounds(setup: Setup, variants: tuple[Variant, ...], measure: Measure) -> dict[str, Results]:
    """Measures every variant once per round, so that a busy minute hurts all alike."""
    results = {variant.name: Results() for variant in variants}
    for number in range(setup.options.rounds):
        for variant in variants:
            say(f"  round {number + 1}/{setup.options.rounds}: {variant.name}")
            results[variant.name].add(**measure(setup, variant))
    return results


def request_table(results: dict[str, Results]) -> list[str]:
    """The table of small requests; the ratio is that of ours to mod_wsgi's CPU."""
    lines = [
        "| hello, world | CPU µs/request | ours : mod_wsgi | requests/s | p50 ms | p99 ms "
        "| RSS MB | PSS MB |",
        "|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for name, row in results.items():
        figures = [row.median(column) for column in ("rate", "p50", "p99", "rss", "pss")]
        rate, p50, p99, rss, pss = figures
        lines.append(
            f"| {name} | {row.median('cpu'):.1f} | {ratio(name, results)} | {rate:.0f} "
            f"| {p50:.2f} | {p99:.2f} | {rss:.0f} | {pss:.0f} |"
        )
    return lines


def file_table(results: dict[str, Results]) -> list[str]:
    """The table of large files."""
    base = next(iter(results.values())).median("cpu")
    lines = [
        "| 100 MB file | CPU ms/download | : httpd itself | ours : mod_wsgi | MB/s |",
        "|---|---:|---:|---:|---:|",
    ]
    for name, row in results.items():
        cpu = row.median("cpu")
        against = f"{cpu / base:.2f}" if base else "-"
        compared = f"{against} | {ratio(name, results)}"
        lines.append(f"| {name} | {cpu:.1f} | {compared} | {row.median('rate'):.0f} |")
    return lines


def ratio(name: str, results: dict[str, Results]) -> str:
    """Our CPU over mod_wsgi's in the same mode; empty for other rows."""
    peer = results.get(name.replace("mod_wsgi_rs", "mod_wsgi 6.1.1"))
    if "mod_wsgi_rs" not in name or peer is None or not peer.median("cpu"):
        return ""
    return f"{results[name].median('cpu') / peer.median('cpu'):.2f}"


def heading(setup: Setup) -> list[str]:
    """Says what the figures were taken with."""
    version = subprocess.run([machine.httpd(), "-v"], capture_output=True, text=True, check=True)
    options = setup.options
    return [
        f"{version.stdout.splitlines()[0].partition(': ')[2]}, event MPM; "
        f"Python {setup.python.name}; {platform.machine()}, {os.cpu_count()} CPUs, the client "
        f"on the same ones; {options.connections} kept connections; median of "
        f"{options.rounds} rounds of {options.seconds} s.",
        "",
    ]


def main() -> int:
    """Measures, prints, keeps."""
    os.umask(0o022)
    options = arguments()
    try:
        BENCH.mkdir(parents=True, exist_ok=True)
        with machine.server_root(BENCH, "mod_wsgi_rs-bench-") as root:
            setup = prepare(options, root)
            say("Small requests:")
            small = rounds(setup, VARIANTS, measure_requests)
            say("Large files:")
            large = rounds(setup, FILE_VARIANTS, measure_file)
    except (Missing, OSError, subprocess.SubprocessError) as error:
        return machine.fail(error)
    except KeyboardInterrupt:
        return 130
    text = "\n".join([*heading(setup), *request_table(small), "", *file_table(large), ""])
    (BENCH / "results.md").write_text(text)
    say("\n" + text)
    say(f"kept in {BENCH / 'results.md'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
