"""Sends many requests to five interpreters of one process and watches what it keeps.

Embedded and daemon mode, each with a lock that all interpreters share and, from Python 3.12 on,
with locks of their own, and a free-threaded Python with none: 24 threads, 24 clients (ApacheBench), a main interpreter and four more.
After each round the process is asked for its private memory, its blocks and its objects, in
every interpreter.  It must be the process of the first round, and from the time it is warm it
must not grow beyond noise.  `--valgrind` runs a few requests under valgrind instead.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent.parent / "examples"))

import machine  # noqa: E402 - it lies in examples/
from machine import Missing, Python, say  # noqa: E402

MOUNTS = ("main", "one", "two", "three", "four")
KINDS = ("small", "body", "pieces", "written", "file", "again", "raising", "data", "cycle")
# A round is long enough to fill what is kept on purpose, such as spare streams and arenas.
ROUNDS = 12
# Rounds before the first measurement.
WARM = 4
# What an allocator may keep, in KB, and how many blocks an interpreter may gain by chance.
NOISE_KB = 2048
NOISE_BLOCKS = 400
# How frames of ours are named.
OURS = r"mod_wsgi_rs|wsgi_python"

CONFIG = """
ServerRoot {root}
ServerName stress.test:{port}
Listen 127.0.0.1:{port}
PidFile {root}/httpd.pid
DefaultRuntimeDir {root}
ErrorLog {root}/error.log
LogLevel crit
{modules}
LoadModule wsgi_module {module}
{account}
<IfModule !mpm_prefork_module>
ServerLimit 1
StartServers 1
ThreadsPerChild 24
MaxRequestWorkers 24
</IfModule>
MaxConnectionsPerChild 0
KeepAlive On
MaxKeepAliveRequests 0
<Directory />
Require all granted
</Directory>
WSGIPythonHome {home}
WSGIPerInterpreterGIL {own}
WSGIFreeThreading {none}
WSGIRestrictEmbedded {is_daemon}
{group}
{aliases}
"""


@dataclass(frozen=True)
class Cell:
    """One way to run the five interpreters."""

    mode: str
    lock: str

    @property
    def name(self) -> str:
        return f"{self.mode}, {self.lock} lock"


@dataclass(frozen=True)
class State:
    """What a process holds."""

    pid: int
    memory: int
    blocks: tuple[int, ...]
    objects: tuple[int, ...]
    handles: int


class Server:
    """A running httpd for one cell."""

    def __init__(self, port: int, root: Path) -> None:
        self.port = port
        self.root = root

    def ask(self, mount: str, kind: str) -> str:
        """The body of one answer."""
        url = f"http://127.0.0.1:{self.port}/{mount}?{kind}"
        with urllib.request.urlopen(url, timeout=60) as answer:
            return answer.read().decode()

    def state(self) -> State:
        """What the process holds, all its interpreters asked."""
        told = [list(map(int, self.ask(mount, "state").split())) for mount in MOUNTS]
        pids = {figures[0] for figures in told}
        if len(pids) != 1:
            raise AssertionError(f"several processes answered: {pids}")
        blocks = tuple(figures[2] for figures in told)
        objects = tuple(figures[3] for figures in told)
        return State(told[-1][0], told[-1][1], blocks, objects, told[-1][4])

    def send(self, requests: int) -> int:
        """Sends about so many, from 24 clients to all interpreters at once; how many failed."""
        failed = 0
        each = max(24, requests // (len(KINDS) * len(MOUNTS)))
        for kind in KINDS:
            runs = []
            for place, mount in enumerate(MOUNTS):
                clients = 4 if place == 0 else 5
                runs.append(self._start(mount, kind, each, clients))
            for run in runs:
                said = run.communicate()[0].decode()
                complete = re.search(r"Complete requests:\s+(\d+)", said)
                wrong = re.search(r"Non-2xx responses:\s+(\d+)", said)
                is_wrong = int(wrong[1]) if wrong else 0
                expected = each if kind in ("raising", "again") else 0
                lost = each - int(complete[1] if complete else 0) + abs(is_wrong - expected)
                if lost:
                    say(f"  {lost} of {each} went wrong, {kind}:\n{said}")
                failed += lost
        return failed

    def _start(self, mount: str, kind: str, each: int, clients: int) -> subprocess.Popen[bytes]:
        command = ["ab", "-q", "-k", "-l", "-r", "-s", "120"]
        command += ["-n", str(each), "-c", str(min(clients, each))]
        if kind == "body":
            command += ["-p", str(self.root / "body"), "-T", "text/plain"]
        command.append(f"http://127.0.0.1:{self.port}/{mount}?{kind}")
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


def modules() -> str:
    """The `LoadModule` lines."""
    lines = []
    for name in ("mpm_event", "unixd", "authz_core", "log_config"):
        path = Path(machine.httpd_modules()) / f"mod_{name}.so"
        if path.is_file():
            lines.append(f"LoadModule {name}_module {path}")
    return "\n".join(lines)


def configure(cell: Cell, python: Python, module: Path, root: Path, port: int) -> Path:
    """Writes the configuration of a cell."""
    daemon = cell.mode == "daemon"
    group = "stress" if daemon else "%{GLOBAL}"
    aliases = []
    for mount in MOUNTS:
        interpreter = "%{GLOBAL}" if mount == "main" else mount
        aliases.append(
            f"WSGIScriptAlias /{mount} {root}/site.wsgi"
            f" process-group={group} application-group={interpreter}"
        )
    account = ""
    if os.getuid() == 0:
        who = machine.accounts()[0]
        account = f"User {who.user}\nGroup {who.group}"
    define = "WSGIDaemonProcess stress threads=24 home=/ listen-backlog=1000\n" if daemon else ""
    text = CONFIG.format(
        root=root, port=port, modules=modules(), module=module, account=account,
        home=python.prefix, own="On" if cell.lock == "own" else "Off",
        none="On" if cell.lock == "no" else "Off",
        is_daemon="On" if daemon else "Off", group=define, aliases="\n".join(aliases),
    )
    path = root / "httpd.conf"
    path.write_text(text)
    return path


@contextlib.contextmanager
def running(
    cell: Cell, python: Python, module: Path, around: list[str], events: bool
) -> Iterator[Server]:
    """An httpd for the cell; `around` is a command that runs it."""
    root = Path(tempfile.mkdtemp(prefix="wsgi-stress-"))
    root.chmod(0o755)
    shutil.copy(HERE / "site.wsgi", root)
    (root / "body").write_bytes(b"a line\n" * 3000)
    port = machine.free_port(18700)
    config = configure(cell, python, module, root, port)
    command = [*around, machine.httpd(), "-f", str(config), "-DFOREGROUND"]
    environment = {"PATH": machine.SYSTEM_PATH, "LANG": "C.UTF-8"}
    if events:
        environment["STRESS_EVENTS"] = "1"
    httpd = subprocess.Popen(command, env=environment)
    server = Server(port, root)

    def is_up() -> bool:
        if httpd.poll() is not None:
            log = root / "error.log"
            raise Missing(f"httpd ended: {log.read_text() if log.is_file() else ''}")
        with contextlib.suppress(OSError):
            return bool(server.ask("main", "small"))
        return False

    try:
        if not machine.wait_until(is_up, 120):
            raise Missing("httpd does not answer")
        yield server
    finally:
        before = len((root / "error.log").read_text())
        httpd.send_signal(signal.SIGTERM)
        httpd.wait(120)
        said = (root / "error.log").read_text()
        shutil.rmtree(root, ignore_errors=True)
    # Told to stop, a child of the event MPM closes sockets that its threads are freeing.
    late = re.sub(r".*AH0005[0-9]:.*exit signal Segmentation fault.*", "", said[before:])
    lines = (said[:before] + late).splitlines()
    loud = [line for line in lines if re.search("signal|fatal|panic", line, re.I)]
    if loud:
        raise AssertionError(f"the log tells of a crash: {loud[:3]}")


def try_cell(cell: Cell, python: Python, module: Path, options: argparse.Namespace) -> list[str]:
    """What is wrong with a cell."""
    with running(cell, python, module, [], options.events) as server:
        states = []
        wrong = 0
        for number in range(1, ROUNDS + 1):
            wrong += server.send(options.requests // ROUNDS)
            states.append(server.state())
            if options.verbose:
                say(f"  round {number}: {states[-1]}")
    return judge(cell, states, wrong)


def judge(cell: Cell, states: list[State], wrong: int) -> list[str]:
    """Compares the last round with the first warm ones; says the figures."""
    warm, last = states[WARM:-3], states[-3:]
    before = max(state.memory for state in warm)
    after = min(state.memory for state in last)
    gained = []
    for place in range(len(MOUNTS)):
        was = max(state.blocks[place] for state in warm)
        gained.append(min(state.blocks[place] for state in last) - was)
    descriptors = min(state.handles for state in last) - max(state.handles for state in warm)
    say(
        f"{cell.name}: private memory {before} KB, then {after} KB ({after - before:+}); "
        f"blocks by interpreter {', '.join(f'{number:+}' for number in gained)}; "
        f"descriptors {descriptors:+}; {wrong} requests went wrong"
    )
    complaints = []
    if len({state.pid for state in states}) != 1:
        complaints.append("the process was replaced")
    if wrong:
        complaints.append(f"{wrong} requests went wrong")
    if after - before > NOISE_KB:
        complaints.append(f"memory grew by {after - before} KB")
    if max(gained) > NOISE_BLOCKS:
        complaints.append(f"an interpreter gained {max(gained)} blocks")
    if descriptors > 2:
        complaints.append(f"{descriptors} descriptors were left open")
    return [f"{cell.name}: {complaint}" for complaint in complaints]


def is_ours(record: str) -> bool:
    """Whether a record of valgrind is one to look at.

    An optimised CPython reads what is not initialised, harmlessly, far above our frames; and
    what is lost once, such as the name of the program, is lent to Python for good.
    """
    if re.search(r"^(Invalid|Mismatched|Jump to the invalid|Process terminating)", record, re.M):
        return True
    lost = re.search(r"bytes in ([\d,]+) blocks are definitely lost", record)
    if lost and int(lost[1].replace(",", "")) < 10:
        return False
    frames = [line for line in record.splitlines() if re.match(r" *(at|by) 0x", line)]
    first = next((n for n, frame in enumerate(frames) if re.search(OURS, frame)), len(frames))
    # 3.12 loses the interned names of each interpreter that it makes.
    return first < 12 and not any("new_interpreter" in frame for frame in frames[:first])


def under_valgrind(
    cell: Cell, python: Python, module: Path, options: argparse.Namespace
) -> list[str]:
    """What valgrind says of a few requests: bad reads and writes, and leaks of our own."""
    logs = Path(tempfile.mkdtemp(prefix="wsgi-valgrind-"))
    logs.chmod(0o777)
    around = ["valgrind", "--trace-children=yes", "--child-silent-after-fork=no", "-q"]
    around += [f"--log-file={logs}/%p", "--leak-check=full", "--show-leak-kinds=definite"]
    around += ["--errors-for-leak-kinds=definite", "--num-callers=30", "--vgdb=no"]
    around = ["env", "PYTHONMALLOC=malloc", *around]
    with running(cell, python, module, around, options.events) as server:
        wrong = server.send(options.requests)
    records = []
    for log in sorted(logs.iterdir()):
        text = re.sub(r"^==\d+== ?", "", log.read_text(errors="replace"), flags=re.M)
        records += [record for record in text.split("\n\n") if "by 0x" in record]
    ours = [record for record in records if is_ours(record)]
    kept = machine.REPOSITORY / "target" / f"valgrind-{cell.mode}-{cell.lock}.txt"
    kept.write_text("\n\n".join(records))
    shutil.rmtree(logs, ignore_errors=True)
    say(f"{cell.name}: {len(records)} records of valgrind, {len(ours)} of ours; {wrong} wrong")
    return [f"{cell.name}: {record}" for record in ours] + (["requests went wrong"] * bool(wrong))


def choose(version: str, shelf: Path) -> Python:
    """A Python of this version, or this interpreter, that everybody may read."""
    if "/" in version:
        named = machine.probe(version)
        if named is None:
            raise Missing(f"{version} is no Python with a shared library")
        return named
    wanted = tuple(map(int, version.split(".")))
    for python in machine.pythons():
        if python.version[:2] == wanted:
            if os.getuid() == 0 and not machine.readable_by_all(python.prefix):
                return machine.copy_python(python, shelf)
            return python
    raise Missing(f"there is no Python {version} with a shared library")


def main() -> int:
    """Runs the cells; 1 if one of them leaks, crashes or answers wrongly."""
    parser = argparse.ArgumentParser(prog="make stress", description=__doc__)
    parser.add_argument("--requests", type=int, default=200_000, help="for each cell")
    parser.add_argument("--python", default="3.11", help="its version, or the path of an interpreter")
    parser.add_argument("--module", type=Path, help="another module than the one built here")
    parser.add_argument("--mode", choices=("embedded", "daemon"))
    parser.add_argument("--events", action="store_true", help="subscribe to events as well")
    parser.add_argument("--valgrind", action="store_true")
    parser.add_argument("--verbose", action="store_true")
    options = parser.parse_args()
    shelf = Path(tempfile.gettempdir()) / f"wsgi-stress-pythons-{os.getuid()}"
    complaints: list[str] = []
    try:
        python = choose(options.python, shelf)
        module = options.module or machine.REPOSITORY / "target" / "release" / "mod_wsgi_rs.so"
        if not module.is_file():
            raise Missing(f"{module} is not there: run `make` first")
        locks = ("shared", "own") if python.version >= (3, 12, 0) else ("shared",)
        if python.is_free_threaded:
            locks = ("no", "shared")
        attempt = under_valgrind if options.valgrind else try_cell
        say(f"Python {python.name}, {options.requests} requests for each")
        for mode in ("daemon", "embedded"):
            for lock in locks:
                if options.mode in (None, mode) and not (options.valgrind and mode == "daemon"):
                    complaints += attempt(Cell(mode, lock), python, module, options)
    except (Missing, AssertionError) as error:
        return machine.fail(error)
    for complaint in complaints:
        say(complaint)
    return 1 if complaints else 0


if __name__ == "__main__":
    sys.exit(main())
