"""The servers that are compared, each behind an httpd of its own."""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

import peers  # noqa: E402 - it lies in benches/
from peers import machine  # noqa: E402
from machine import Missing, Python  # noqa: E402 - examples/ is on the path by now

TICK = os.sysconf("SC_CLK_TCK")
FILE_SIZE = 100 * 2**20
THREADS = 15
# Of httpd: more than clients that sleep in an application at a time.
WORKERS = 80
PATIENCE = 30


@dataclass(frozen=True)
class Server:
    """Who answers, and where the application runs."""

    name: str
    # "httpd", "ours", "mod_wsgi", or what runs behind mod_proxy.
    kind: str
    # 0: embedded mode.
    processes: int = 0

    @property
    def slug(self) -> str:
        """Its name as that of a directory."""
        return re.sub(r"[^a-z0-9]+", "-", self.name.lower()).strip("-")


STATIC = Server("httpd alone", "httpd")
EMBEDDED = Server("mod_wsgi_rs, embedded", "ours")
PEER_EMBEDDED = Server("mod_wsgi 6.1.1, embedded", "mod_wsgi")
DAEMON = Server("mod_wsgi_rs, 1 process", "ours", 1)
PEER_DAEMON = Server("mod_wsgi 6.1.1, 1 process", "mod_wsgi", 1)
UWSGI = Server("mod_proxy_uwsgi + uWSGI", "uwsgi", 1)
GUNICORN = Server("mod_proxy_http + gunicorn", "gunicorn", 1)
GRANIAN = Server("mod_proxy_http + granian", "granian", 1)


def ours(processes: int) -> Server:
    """Our daemon mode with so many processes."""
    if processes == 1:
        return DAEMON
    return Server(f"mod_wsgi_rs, {processes} processes", "ours", processes)


def with_groups(groups: int) -> Server:
    """Our daemon mode with so many groups, of which one is asked."""
    return DAEMON if groups == 1 else Server(f"mod_wsgi_rs, {groups} groups", "ours", 1)


def peer(processes: int) -> Server:
    """mod_wsgi's daemon mode with so many processes."""
    if processes == 1:
        return PEER_DAEMON
    return Server(f"mod_wsgi 6.1.1, {processes} processes", "mod_wsgi", processes)


ALL = (
    STATIC, EMBEDDED, DAEMON, ours(2), ours(4), PEER_EMBEDDED, PEER_DAEMON, peer(2),
    UWSGI, GUNICORN, GRANIAN,
)


@dataclass
class Setup:
    """What all servers share."""

    root: Path
    modules: dict[str, Path]
    python: Python
    # The virtual environment with the peers and what the applications import.
    home: Path
    options: argparse.Namespace


@dataclass
class Running:
    """A server that answers."""

    server: Server
    port: int
    root: Path
    leaders: list[int]
    # From its start to its first answer, in seconds.
    start: float

    def url(self, path: str) -> str:
        """Where `path` is asked for."""
        return f"http://127.0.0.1:{self.port}{path}"

    def family(self) -> dict[int, str]:
        """All its processes."""
        found: dict[int, str] = {}
        for leader in self.leaders:
            found |= machine.family_of(leader)
        return found

    def cpu(self) -> float:
        """Seconds of CPU time that all its processes used, the ended ones included."""
        total = 0.0
        for pid in self.family():
            with contextlib.suppress(OSError):
                fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
                # cutime, cstime: those of children waited for.
                total += cpu_of(pid) + sum(map(int, fields[13:15])) / TICK
        return total

    def get(self, path: str) -> bytes:
        """The body of an answer, which has to be a success."""
        return fetch(self.port, path)


def cpu_of(pid: int) -> float:
    """Seconds of CPU time of a live process, to the nanosecond, its ended threads included.

    `/proc/PID/stat` has ticks of 10 ms, and `schedstat` forgets threads that ended. The
    number of a process' clock is made as in `clock_getcpuclockid`.
    """
    scheduled = 2
    return time.clock_gettime((~pid << 3) | scheduled)


def fetch(port: int, path: str, body: bytes = b"", timeout: float = PATIENCE) -> bytes:
    """One request on a connection of its own; the body of its answer."""
    method = "POST" if body else "GET"
    head = f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
    if body:
        head += f"Content-Length: {len(body)}\r\n"
    with socket.create_connection(("127.0.0.1", port), timeout) as connection:
        connection.sendall(head.encode() + b"\r\n" + body)
        answer = b"".join(iter(lambda: connection.recv(2**16), b""))
    head, _, rest = answer.partition(b"\r\n\r\n")
    if b" 200 " not in head.partition(b"\r\n")[0] + b" ":
        raise Missing(f"{path}: {head.partition(bytes([13]))[0].decode('latin-1')}")
    return rest


def prepare(options: argparse.Namespace, root: Path) -> Setup:
    """Makes the folder of everything with both modules and what they serve."""
    module = machine.REPOSITORY / options.module
    if not module.is_file():
        raise Missing(f"{module} is not there: run `make` first")
    python = machine.choose_python()
    home = peers.home(python)
    if os.getuid() == 0 and not machine.readable_by_all(home):
        raise Missing(
            f"httpd's users cannot read {home}: start the benchmark as an ordinary user, "
            "or from a copy of the repository that everybody may read"
        )
    for folder in ("static", "modules"):
        (root / folder).mkdir(exist_ok=True)
    modules = {}
    for name, source in (("ours", module), ("mod_wsgi", peers.module(home))):
        modules[name] = install(source, root / "modules")
    for half in module.parent.glob("wsgi_python.*.so"):
        install(half, root / "modules")
    (root / "static" / "hello").write_text("Hello, world!")
    (root / "static" / "typical").write_bytes(b"x" * 10240)
    with open(root / "static" / "large", "wb") as large:
        # Written, not left as a hole: a hole would be read from nowhere.
        for _ in range(FILE_SIZE // 2**20):
            large.write(os.urandom(2**20))
    machine.make_readable(root)
    return Setup(root, modules, python, home, options)


def install(source: Path, folder: Path) -> Path:
    """Copies a module as a file of its own: a running httpd may have mapped the old one."""
    target = folder / source.name
    target.unlink(missing_ok=True)
    shutil.copy(source, target)
    return target


def backend(setup: Setup, server: Server, root: Path) -> tuple[list[object], str, str]:
    """What runs behind mod_proxy: its command, its address and httpd's module for it."""
    binaries = setup.home / "bin"
    place = root / "run" / "backend"
    if len(str(place)) > 100:
        raise Missing(f"a socket cannot have so long a name: {place}")
    processes, threads = str(server.processes), str(THREADS)
    if server.kind == "uwsgi":
        command = [binaries / "uwsgi", "--socket", place, "--chmod-socket=666", "--master"]
        command += ["--processes", processes, "--threads", threads, "--die-on-term"]
        command += ["--need-app", "--disable-logging", "--virtualenv", setup.home]
        command += ["--wsgi-file", root / "site" / "app.py", "--buffer-size", "65536"]
        return command, f"unix:{place}|uwsgi://{server.slug}/", "proxy_uwsgi"
    if server.kind == "gunicorn":
        command = [binaries / "gunicorn", "--bind", f"unix:{place}", "--umask", "0"]
        command += ["--workers", processes, "--worker-class", "gthread", "--threads", threads]
        command += ["--keep-alive", "60", "--log-level", "warning", "app:application"]
        return command, f"unix:{place}|http://{server.slug}/", "proxy_http"
    command = [binaries / "granian", "--interface", "wsgi", "--uds", place]
    command += ["--uds-permissions", "666", "--workers", processes, "--no-log"]
    command += ["--blocking-threads", threads, "app:application"]
    return command, f"unix:{place}|http://{server.slug}/", "proxy_http"


def folder(setup: Setup, server: Server) -> Path:
    """The server root of `server`, fresh."""
    root = setup.root / "servers" / server.slug
    shutil.rmtree(root, ignore_errors=True)
    for name in ("run", "logs"):
        (root / name).mkdir(parents=True)
    shutil.copytree(HERE / "site", root / "site", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(HERE / "httpd.conf", root / "common.conf")
    machine.make_readable(root)
    return root


def defines(
    setup: Setup, server: Server, root: Path, port: int, workers: int
) -> dict[str, object]:
    """The values for the names in httpd.conf."""
    httpd_account, site_account = machine.accounts()
    values: dict[str, object] = {
        "ROOT": root,
        "SHARED": setup.root,
        "PORT": port,
        "THREADS": workers,
        "MODULES": machine.httpd_modules(),
        "PYTHON_HOME": setup.home,
        "HTTPD_USER": httpd_account.user,
        "HTTPD_GROUP": httpd_account.group,
        "SITE_USER": site_account.user,
        "SITE_GROUP": site_account.group,
    }
    if server.kind in setup.modules:
        values["WSGI_MODULE"] = setup.modules[server.kind]
        if server.processes:
            values["PROCESSES"] = server.processes
    return values


@contextlib.contextmanager
def running(
    setup: Setup, server: Server, more: str = "", workers: int = WORKERS
) -> Iterator[Running]:
    """`server`, once it has answered; `more` is further configuration of the module,
    `workers` how many threads httpd has."""
    root = folder(setup, server)
    port = machine.free_port(8600)
    values = defines(setup, server, root, port, workers)
    started: list[subprocess.Popen] = []
    with contextlib.ExitStack() as stack:
        output = stack.enter_context(open(root / "logs" / "output.log", "wb"))

        def start(command: list[object]) -> None:
            process = subprocess.Popen(
                machine.with_family(command), start_new_session=True, cwd=root / "site",
                stdin=subprocess.DEVNULL, stdout=output, stderr=output,
            )
            started.append(process)
            stack.callback(machine.end_family, process)

        (root / "more.conf").write_text(more)
        began = time.monotonic()
        if server.kind not in (*setup.modules, "httpd"):
            command, values["BACKEND"], values["SCHEME_MODULE"] = backend(setup, server, root)
            start(command)
        config = machine.write_defines(root / "httpd.conf", values, root / "common.conf")
        start([machine.httpd(), "-f", config, "-D", "FOREGROUND"])
        path = "/static/hello" if server is STATIC else "/app/hello"
        await_answer(server, port, path, started, root)
        leaders = [process.pid for process in started]
        yield Running(server, port, root, leaders, time.monotonic() - began)


def await_answer(
    server: Server, port: int, path: str, started: list[subprocess.Popen], root: Path
) -> None:
    """Waits for the first success."""

    def answered() -> bool:
        if any(process.poll() is not None for process in started):
            raise Missing(f"{server.name} ended\n{logs(root)}")
        with contextlib.suppress(OSError, Missing):
            return bool(fetch(port, path))
        return False

    if not machine.wait_until(answered, 120 if server.processes > 8 else PATIENCE, 0.002):
        raise Missing(f"{server.name}: no answer\n{logs(root)}")


def logs(root: Path) -> str:
    """The last lines of what it said."""
    texts = [path.read_text(errors="replace") for path in sorted((root / "logs").iterdir())]
    return "\n".join(line for text in texts for line in text.splitlines()[-20:])
