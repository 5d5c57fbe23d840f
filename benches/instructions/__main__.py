"""Counts the instructions of a request, which are the same on a busy machine.

A private httpd runs inside Valgrind's callgrind, answers some requests of each kind on
one connection and ends; another one answers more of one kind.  The difference, by the
number of requests more, is what one costs: starting and ending cancel out.  The counts
stand beside those of budget.json, which are for Python 3.11; `--accept` writes them there.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent.parent / "examples"))

import machine  # noqa: E402 - it lies in examples/
from machine import Missing, Python, say  # noqa: E402

BUDGET = HERE / "budget.json"
VERSION = (3, 11)
# Beyond it a count is too high; releases of Python 3.11 and of httpd differ by less.
TOLERANCE = 0.04
# Of each kind in every run, until all that is made once is made; and of one kind more.
FEW, MORE = 30, 200
PATIENCE = 120
HEADERS = "".join(
    f"{name}: {value}\r\n"
    for name, value in (
        ("User-Agent", "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"),
        ("Accept", "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"),
        ("Accept-Language", "en-GB,en;q=0.5"),
        ("Accept-Encoding", "gzip, deflate, br"),
        ("Cookie", "sessionid=0123456789abcdef0123456789abcdef; csrftoken=fedcba9876543210"),
        ("Referer", "http://localhost/app/"),
        ("Cache-Control", "no-cache"),
        ("X-Forwarded-For", "192.0.2.7"),
    )
)
BODY = "x" * 2000
# Name, path, further headers, body.
REQUESTS = {
    "nothing": ("/nothing", "", ""),
    "hello": ("/app/hello", "", ""),
    "typical": ("/app/typical", HEADERS, ""),
    "form": ("/app/upload", "Content-Length: 2000\r\n", BODY),
}


@dataclass
class Setup:
    """What all runs share."""

    root: Path
    module: Path
    python: Python
    home: str


def arguments() -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--accept", action="store_true", help="make the counts the budget")
    parser.add_argument("--only", default="", help="requests whose name contains this")
    parser.add_argument("--keep", metavar="DIRECTORY", help="keep callgrind's files there")
    parser.add_argument("--module", default="target/release/mod_wsgi_rs.so")
    return parser.parse_args()


def prepare(options: argparse.Namespace, root: Path) -> Setup | None:
    """Makes the site; none if this machine has no Python the budget is for."""
    module = machine.REPOSITORY / options.module
    if not module.is_file():
        raise Missing(f"{module} is not there: run `make` first")
    if not shutil.which("valgrind"):
        raise Missing("valgrind is not there: run `make deps`")
    fitting = [python for python in machine.pythons() if python.version[:2] == VERSION]
    if not fitting:
        return None
    python = next((p for p in fitting if machine.readable_by_all(p.prefix)), fitting[0])
    home = python.prefix
    if os.getuid() == 0 and not machine.readable_by_all(home):
        home = machine.copy_python(python, root).prefix
    (root / "modules").mkdir()
    for source in (module, *module.parent.glob("wsgi_python.*.so")):
        shutil.copy(source, root / "modules")
    shutil.copytree(HERE.parent / "cost" / "site", root / "site")
    library = root / "modules" / "pidfd.so"
    subprocess.run(["cc", "-shared", "-fPIC", "-o", library, HERE / "pidfd.c", "-ldl"], check=True)
    machine.make_readable(root)
    return Setup(root, root / "modules" / module.name, python, home)


def ask(connection: socket.socket, path: str, headers: str = "", body: str = "") -> bytes:
    """One request and its answer on a kept connection."""
    method = "POST" if body else "GET"
    connection.sendall(f"{method} {path} HTTP/1.1\r\nHost: localhost\r\n{headers}\r\n{body}".encode())
    answer = b""
    while b"\r\n\r\n" not in answer:
        answer += receive(connection)
    head, _, rest = answer.partition(b"\r\n\r\n")
    status = head.split(b" ", 2)[1]
    if status == b"204":
        return b""
    length = [line for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:")]
    if status != b"200" or not length:
        raise Missing(f"{path}: {head.decode('latin-1')}")
    while len(rest) < int(length[0].split(b":")[1]):
        rest += receive(connection)
    return rest


def receive(connection: socket.socket) -> bytes:
    """Some bytes; there have to be some."""
    data = connection.recv(65536)
    if not data:
        raise Missing("httpd closed the connection")
    return data


class Run:
    """One httpd inside callgrind: what its processes have counted when it has ended."""

    def __init__(self, setup: Setup, mode: str, more: str, port: int) -> None:
        """Prepares a directory of its own; `more` is the kind of request it has more of."""
        self.setup, self.mode, self.more, self.port = setup, mode, more, port
        self.root = setup.root / f"{mode}-{more or 'base'}"
        self.files = self.root / "counts"
        self.log = self.root / "error.log"
        self.counts: dict[str, int] = {}
        for folder in (self.root / "run", self.files):
            folder.mkdir(parents=True)
        shutil.copytree(setup.root / "site", self.root / "site")
        machine.make_readable(self.root)
        # The processes write what they counted when they are nobody's any more.
        self.files.chmod(0o777)

    def config(self) -> Path:
        """Its httpd.conf."""
        httpd_account, site_account = machine.accounts()
        values: dict[str, object] = {
            "ROOT": self.root,
            "PORT": self.port,
            "MODULES": machine.httpd_modules(),
            "WSGI_MODULE": self.setup.module,
            "PYTHON_HOME": self.setup.home,
            "HTTPD_USER": httpd_account.user,
            "HTTPD_GROUP": httpd_account.group,
            "SITE_USER": site_account.user,
            "SITE_GROUP": site_account.group,
        }
        if self.mode == "daemon":
            values["DAEMON"] = 1
        return machine.write_defines(self.root / "httpd.conf", values, HERE / "httpd.conf")

    def run(self) -> None:
        """Starts it, asks, ends it, reads what was counted."""
        # Not on the command line: a daemon process writes its title over that.
        counter = f"--callgrind-out-file={self.files}/%p --quiet --vgdb=no"
        command = ["valgrind", "--tool=callgrind", machine.httpd(), "-f", self.config(), "-D", "FOREGROUND"]
        # Counts depend on the order in which dictionaries are filled.
        library = self.setup.module.parent / "pidfd.so"
        environment = {**os.environ, "PYTHONHASHSEED": "0", "LD_PRELOAD": str(library)}
        environment["VALGRIND_OPTS"] = counter
        with open(self.root / "output.log", "wb") as output:
            httpd = subprocess.Popen(
                machine.with_family(command), start_new_session=True, env=environment,
                stdin=subprocess.DEVNULL, stdout=output, stderr=output,
            )
            try:
                with self.connect(httpd) as connection:
                    pid = self.first(connection)
                    for name in REQUESTS:
                        self.ask_often(connection, name, FEW)
                    if self.more:
                        self.ask_often(connection, self.more, MORE)
            finally:
                machine.end_family(httpd)
        self.counts = self.read(httpd.pid, pid)

    def connect(self, httpd: subprocess.Popen) -> socket.socket:
        """A connection, once httpd takes some."""

        def listens() -> bool:
            if httpd.poll() is not None:
                raise Missing(f"httpd ended: {self.said()}")
            with contextlib.suppress(OSError):
                socket.create_connection(("127.0.0.1", self.port), 1).close()
                return True
            return False

        if not machine.wait_until(listens, PATIENCE):
            raise Missing(f"httpd does not listen: {self.said()}")
        return socket.create_connection(("127.0.0.1", self.port), PATIENCE)

    @staticmethod
    def ask_often(connection: socket.socket, name: str, times: int) -> None:
        """The same request again and again."""
        for _ in range(times):
            ask(connection, *REQUESTS[name])

    def first(self, connection: socket.socket) -> int:
        """Which process answers for the application, which is loaded then."""
        try:
            return int(ask(connection, "/app/pid"))
        except Missing as error:
            raise Missing(f"{error}\n{self.said()}") from error

    def said(self) -> str:
        """What it logged."""
        return self.log.read_text() if self.log.exists() else ""

    def read(self, leader: int, application: int) -> dict[str, int]:
        """The instructions of the child and of the process with the application."""
        counts = {}
        for path in self.files.iterdir():
            with contextlib.suppress(ValueError):
                counts[int(path.name)] = total(path)
        if application not in counts:
            raise Missing(f"process {application} counted nothing: {sorted(counts)}\n{self.said()}")
        if self.mode == "embedded":
            return {"httpd": counts[application]}
        others = {pid: n for pid, n in counts.items() if pid not in (leader, application)}
        # The supervisor does next to nothing.
        return {"daemon": counts[application], "httpd": max(others.values())}


def total(path: Path) -> int:
    """All instructions of a process."""
    for line in path.read_text(errors="replace").splitlines():
        if line.startswith(("summary:", "totals:")):
            return int(line.split()[1])
    raise ValueError(path)


def count(setup: Setup, names: list[str]) -> dict[str, int]:
    """The instructions of each kind of request, by mode and process."""
    kinds = [("daemon", ""), ("embedded", "")]
    # What httpd itself needs is the same in both modes.
    kinds += [(mode, name) for name in names for mode in ("daemon", "embedded")]
    kinds = [kind for kind in kinds if kind != ("embedded", "nothing")]
    runs = {
        kind: Run(setup, *kind, machine.free_port(8700 + 20 * at))
        for at, kind in enumerate(kinds)
    }
    # Two at a time: counting is slow, and what else the machine does is not counted.
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        for done in [pool.submit(run.run) for run in runs.values()]:
            done.result()
    found = {}
    for (mode, name), run in runs.items():
        for process, counted in run.counts.items() if name else ():
            each = (counted - runs[mode, ""].counts[process]) // MORE
            found[f"{mode}, {name}, {process}"] = each
    return found


def judge(found: dict[str, int], budget: dict[str, int]) -> bool:
    """Prints the counts beside the budget; whether all are within."""
    good = True
    say("| instructions a request | counted | budget |  |")
    say("|---|---:|---:|---:|")
    for name, counted in found.items():
        allowed = budget.get(name)
        if allowed is None:
            say(f"| {name} | {counted:,} | – | |")
            continue
        change = counted / allowed - 1
        word = "" if change <= TOLERANCE else "**too many**"
        good &= change <= TOLERANCE
        say(f"| {name} | {counted:,} | {allowed:,} | {change:+.1%} {word} |")
        if change < -TOLERANCE:
            say(f"{name}: so much less deserves a new budget (--accept)")
    return good


def net(found: dict[str, int]) -> dict[str, int]:
    """The counts of httpd's child without what httpd itself needs for any request."""
    own = dict(found)
    for name, counted in found.items():
        if name.endswith(", httpd"):
            own[name] = counted - found["daemon, nothing, httpd"]
    return {name: counted for name, counted in own.items() if ", nothing, " not in name}


def main() -> int:
    """Counts, compares."""
    os.umask(0o022)
    options = arguments()
    names = [name for name in REQUESTS if options.only in name or name == "nothing"]
    try:
        with tempfile.TemporaryDirectory(prefix="mod_wsgi_rs-count-") as name:
            root = Path(name)
            root.chmod(0o755)
            setup = prepare(options, root)
            if setup is None:
                say("SKIPPED: instructions are counted with Python 3.11, which is not here")
                return 0
            try:
                found = net(count(setup, names))
            finally:
                if options.keep:
                    shutil.copytree(root, options.keep, dirs_exist_ok=True)
    except (Missing, OSError, subprocess.SubprocessError) as error:
        return machine.fail(error)
    budget = json.loads(BUDGET.read_text())
    if options.accept:
        BUDGET.write_text(json.dumps(budget | found, indent=4) + "\n")
        budget |= found
    return 0 if judge(found, budget) else 1


if __name__ == "__main__":
    sys.exit(main())
