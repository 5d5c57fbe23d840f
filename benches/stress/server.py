"""The httpd of a cell: five interpreters in one process, asked for everything at once."""

from __future__ import annotations

import contextlib
import os
import re
import resource
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent.parent / "examples"))

import machine  # noqa: E402 - it lies in examples/
from machine import Missing, Python, say  # noqa: E402

MOUNTS = ("main", "one", "two", "three", "four")
# Each is sent to `/MOUNT?KIND`, or to the path that is named.
KINDS = (
    "small", "body", "pieces", "written", "file", "again", "raising", "data", "cycle", "upload",
    "logged", "included", "guarded", "handled",
)
PATHS = {
    "included": "/{mount}/included?included",
    "guarded": "/{mount}/guarded?small",
    "handled": "/handled/{mount}",
}
# These end with status 500.
FAILING = ("raising", "again")
BODIES = {"body": b"a line\n" * 3000, "upload": b"x" * 150_000}
# What is not of ours: a child that stops closes sockets that its workers are freeing.
# `apr_socket_close` leaves its frame to the function it ends with.
OWN_RACE = re.compile("apr_os_sock_get|apr_socket_|apr_pool_cleanup_run")


@dataclass(frozen=True)
class Cell:
    """One way to run the five interpreters."""

    mode: str
    lock: str

    @property
    def name(self) -> str:
        """What the person at the terminal reads."""
        return f"{self.mode}, {self.lock} lock"


@dataclass(frozen=True)
class Subject:
    """What a cell runs."""

    python: Python
    module: Path
    watched: bool
    # A command that runs httpd, and variables for it.
    around: tuple[str, ...] = ()
    variables: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class State:
    """What the process with the applications holds, and the memory of httpd's child."""

    pid: int
    memory: int
    blocks: tuple[int, ...]
    objects: tuple[int, ...]
    handles: int
    child: int


def private_memory(pid: int) -> int:
    """What a process shares with nobody, in KB."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Private_Dirty"):
            return int(line.split()[1])
    return 0


def parent_and_name(pid: str) -> tuple[int, str]:
    """Who began a process, and what it is called."""
    name, _, rest = Path(f"/proc/{pid}/stat").read_text().partition("(")[2].rpartition(")")
    return int(rest.split()[1]), name


class Server:
    """A running httpd for one cell."""

    def __init__(self, cell: Cell, port: int, root: Path, httpd: subprocess.Popen[bytes]) -> None:
        self.cell = cell
        self.port = port
        self.root = root
        self.httpd = httpd
        # How long the log was when httpd was first told to stop its children.
        self.told_to_stop = sys.maxsize

    @property
    def log(self) -> str:
        """What httpd logged."""
        path = self.root / "error.log"
        return path.read_text(errors="replace") if path.is_file() else ""

    def note_stop(self) -> None:
        """Notes that httpd is being told to stop its children."""
        self.told_to_stop = min(self.told_to_stop, len(self.log))

    def url(self, mount: str, kind: str) -> str:
        """Where a kind of request goes."""
        path = PATHS.get(kind, "/{mount}?{kind}").format(mount=mount, kind=kind)
        return f"http://127.0.0.1:{self.port}{path}"

    def ask(self, mount: str, kind: str, seconds: float = 60) -> str:
        """The body of one answer."""
        with urllib.request.urlopen(self.url(mount, kind), timeout=seconds) as answer:
            return answer.read().decode()

    def give_up(self, mount: str) -> None:
        """Begins to read a long answer and goes away."""
        with socket.create_connection(("127.0.0.1", self.port), 60) as client:
            client.sendall(f"GET /{mount}?unfinished HTTP/1.1\r\nHost: stress.test\r\n\r\n".encode())
            client.recv(1000)

    def children(self) -> list[int]:
        """httpd's own child processes."""
        found = []
        for entry in os.listdir("/proc"):
            if entry.isdigit():
                with contextlib.suppress(OSError):
                    parent, name = parent_and_name(entry)
                    if parent == self.httpd.pid and not name.startswith("wsgi:"):
                        found.append(int(entry))
        return found

    def state(self) -> State:
        """What the process holds, all its interpreters asked."""
        told = [list(map(int, self.ask(mount, "state").split())) for mount in MOUNTS]
        pids = {figures[0] for figures in told}
        if len(pids) != 1:
            raise AssertionError(f"several processes answered: {pids}")
        blocks = tuple(figures[2] for figures in told)
        objects = tuple(figures[3] for figures in told)
        child = sum(private_memory(pid) for pid in self.children())
        return State(told[-1][0], told[-1][1], blocks, objects, told[-1][4], child)

    def send(self, requests: int) -> int:
        """Sends about so many, from 24 clients to all interpreters at once; how many failed."""
        failed = 0
        each = max(24, requests // (len(KINDS) * len(MOUNTS)))
        for kind in KINDS:
            for run in self.start(kind, each):
                said = run.communicate()[0].decode()
                complete = re.search(r"Complete requests:\s+(\d+)", said)
                wrong = re.search(r"Non-2xx responses:\s+(\d+)", said)
                expected = each if kind in FAILING else 0
                is_wrong = abs((int(wrong[1]) if wrong else 0) - expected)
                lost = each - int(complete[1] if complete else 0) + is_wrong
                if lost:
                    say(f"  {lost} of {each} went wrong, {kind}:\n{said}")
                failed += lost
        return failed

    def start(self, kind: str, each: int) -> list[subprocess.Popen[bytes]]:
        """Clients that send `each` requests of a kind to every interpreter."""
        runs = []
        for place, mount in enumerate(MOUNTS):
            clients = min(4 if place == 0 else 5, each)
            command = ["ab", "-q", "-k", "-l", "-r", "-s", "300", "-n", str(each)]
            command += ["-c", str(clients)]
            if kind in BODIES:
                command += ["-p", str(self.root / kind), "-T", "text/plain"]
            if kind == "guarded":
                command += ["-A", "tester:secret"]
            command.append(self.url(mount, kind))
            runs.append(subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT))
        return runs


def prepare(cell: Cell, subject: Subject, port: int) -> Path:
    """Makes the server root."""
    root = Path(tempfile.mkdtemp(prefix="wsgi-stress-"))
    root.chmod(0o755)
    (root / "cores").mkdir()
    (root / "cores").chmod(0o777)
    for name in ("site.wsgi", "handler.py", "providers.py"):
        shutil.copy(HERE / name, root)
    for name, content in BODIES.items():
        (root / name).write_bytes(content)
    who = machine.accounts()[0]
    values: dict[str, object] = {
        "ROOT": root, "PORT": port, "MODULES": machine.httpd_modules(),
        "WSGI_MODULE": subject.module, "PYTHON_HOME": subject.python.prefix,
        "HTTPD_USER": who.user, "HTTPD_GROUP": who.group,
        "OWN_LOCK": "On" if cell.lock == "own" else "Off",
        "NO_LOCK": "On" if cell.lock == "no" else "Off",
        "GROUP": "stress" if cell.mode == "daemon" else "%{GLOBAL}",
    }
    values |= {"DAEMON": 1} if cell.mode == "daemon" else {}
    values |= {"WATCHED": 1} if subject.watched else {}
    values |= {"AS_ROOT": 1} if os.getuid() == 0 else {}
    machine.write_defines(root / "httpd.conf", values, HERE / "httpd.conf")
    machine.make_readable(root)
    return root


def listen_to_telemetry(root: Path) -> socket.socket:
    """Takes what processes report, and forgets it."""
    receiver = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    receiver.bind(str(root / "telemetry"))
    (root / "telemetry").chmod(0o777)

    def receive() -> None:
        with contextlib.suppress(OSError):
            while receiver.recv(65536):
                pass

    threading.Thread(target=receive, daemon=True).start()
    return receiver


def launch(cell: Cell, subject: Subject) -> Server:
    """Starts httpd for a cell; it answers."""
    # Others may run at the same time.
    port = machine.free_port(20000 + os.getpid() % 100 * 100)
    root = prepare(cell, subject, port)
    command = [*subject.around, machine.httpd(), "-f", str(root / "httpd.conf"), "-DFOREGROUND"]
    environment = {"PATH": machine.SYSTEM_PATH, "LANG": "C.UTF-8", **dict(subject.variables)}
    if subject.watched:
        environment["STRESS_WATCHED"] = "1"
    _, hard = resource.getrlimit(resource.RLIMIT_CORE)
    resource.setrlimit(resource.RLIMIT_CORE, (hard, hard))
    httpd = subprocess.Popen(machine.with_family(command), env=environment, start_new_session=True)
    server = Server(cell, port, root, httpd)

    def is_up() -> bool:
        if httpd.poll() is not None:
            raise Missing(f"httpd ended: {server.log}")
        with contextlib.suppress(OSError):
            return bool(server.ask("main", "small"))
        return False

    if not machine.wait_until(is_up, 300, 0.1):
        machine.end_family(httpd)
        raise Missing(f"httpd does not answer: {server.log[-3000:]}")
    return server


def stop(server: Server) -> None:
    """Stops httpd, waits for all that it began, and looks at what was left."""
    server.note_stop()
    server.httpd.send_signal(signal.SIGTERM)
    try:
        server.httpd.wait(300)
        if not machine.wait_until(lambda: not machine.family_of(server.httpd.pid), 120):
            raise AssertionError(f"left behind: {machine.family_of(server.httpd.pid)}")
    finally:
        machine.end_family(server.httpd)
    complaints = crashes(server)
    if complaints:
        raise AssertionError("\n".join([f"{server.root} tells of a crash:", *complaints]))
    shutil.rmtree(server.root, ignore_errors=True)


def crashes(server: Server) -> list[str]:
    """Lines of the log, and stacks of cores, that tell of a crash that is not httpd's own.

    Told to stop, a child of the event MPM closes sockets that its threads are freeing; where
    there is a core its main thread says so.
    """
    said = server.log
    stacks = [stack(core) for core in sorted((server.root / "cores").iterdir())]
    complaints = [text for text in stacks if not is_httpds_own(text)]
    before, late = said[: server.told_to_stop], said[server.told_to_stop :]
    late = re.sub(r".*AH0005[0-9]:.*exit signal Segmentation fault.*", "", late)
    loud = r"exit signal|Fatal Python|panicked|ended by SIG(?!TERM|INT)|ended by signal"
    lines = (before + late).splitlines()
    return complaints + [line for line in lines if re.search(loud, line)][:3]


def stack(core: Path) -> str:
    """What all threads of a process did that has left a core."""
    command = ["gdb", "-nx", "-batch", "-ex", "thread apply all bt 40", machine.httpd(), str(core)]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout


def is_httpds_own(text: str) -> bool:
    """Whether the main thread stands at the sockets of the workers, above no code of ours."""
    for thread in text.split("\nThread "):
        if "ap_run_mpm" in thread and "wsgi" not in thread and OWN_RACE.search(thread):
            return True
    return False


@contextlib.contextmanager
def running(cell: Cell, subject: Subject) -> Iterator[Server]:
    """An httpd for the cell, which is stopped and looked at."""
    server = launch(cell, subject)
    receiver = listen_to_telemetry(server.root) if subject.watched else None
    try:
        yield server
    except BaseException:
        machine.end_family(server.httpd)
        raise
    else:
        stop(server)
    finally:
        if receiver:
            receiver.close()
