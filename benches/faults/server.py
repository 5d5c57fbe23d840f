"""The httpd a case is tried on: private, on a free port, its processes told apart."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE.parent.parent / "examples")]

import machine  # noqa: E402 - it lies in examples/
import peers  # noqa: E402 - it lies in benches/
from clients import STATIC  # noqa: E402
from machine import Missing, Python  # noqa: E402

# What a title begins with: `display-name=%{GROUP}` is the same in both modules.
GROUP = "(wsgi:faults"
SERVICE = "(wsgi:service"
SUPERVISOR = "wsgi: superviso"
SPARE = "wsgi: spare sup"
# Said by httpd when a configuration has taken effect.
RESUMED = "resuming normal operations"
PATIENCE = 30.0


@dataclass(frozen=True)
class Subject:
    """The module under test, installed in a server root."""

    name: str
    root: Path
    module: Path
    python_home: str
    version: str


@dataclass(frozen=True)
class Settings:
    """What the configuration of a case says."""

    processes: int
    options: str = ""
    service: bool = False
    tls: bool = False


def install(name: str, module: Path, root: Path) -> Subject:
    """Makes a server root with the module in it."""
    if not module.is_file():
        raise Missing(f"{module} is not there: run `make` first")
    python = python_for(module)
    home = python.prefix
    if os.getuid() == 0 and not machine.readable_by_all(home):
        home = machine.copy_python(python, root).prefix
    for folder in ("run", "logs", "static", "modules", "tls"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    shutil.copytree(HERE / "site", root / "site", dirs_exist_ok=True)
    (root / "site" / "run").mkdir(exist_ok=True)
    shutil.copy(HERE / "faults.conf", root)
    (root / "static" / "file").write_bytes(STATIC)
    copied = root / "modules" / module.name
    for source in [module, *module.parent.glob("wsgi_python.*.so")]:
        target = root / "modules" / source.name
        target.unlink(missing_ok=True)
        shutil.copy(source, target)
    machine.make_readable(root)
    (root / "site" / "run").chmod(0o777)
    return Subject(name, root, copied, home, python.name)


def python_for(module: Path) -> Python:
    """The Python a module is linked to; for one that is not, the usual one."""
    linked = re.search(rb"libpython3\.(\d+)\.so", module.read_bytes())
    wanted = machine.choose_python()
    if not linked or wanted.version[1] == int(linked[1]):
        return wanted
    for python in machine.pythons():
        if python.version[1] == int(linked[1]):
            return python
    raise Missing(f"{module} is for Python 3.{linked[1].decode()}, which is not here")


class Httpd:
    """A running httpd and the processes it began."""

    def __init__(self, subject: Subject, settings: Settings) -> None:
        self.subject = subject
        self.settings = settings
        self.root = subject.root
        self.port = machine.free_port(8700)
        self.tls_port = machine.free_port(self.port + 100) if settings.tls else 0
        self.log = self.root / "logs" / "error.log"
        self.process: subprocess.Popen | None = None

    @property
    def leader(self) -> int:
        """The process id of httpd's parent."""
        return self.process.pid

    def configuration(self) -> Path:
        """Writes httpd.conf: the values for the names in faults.conf."""
        httpd_account, site_account = machine.accounts()
        values = {
            "ROOT": self.root,
            "PORT": self.port,
            "MODULES": machine.httpd_modules(),
            "WSGI_MODULE": self.subject.module,
            "PYTHON_HOME": self.subject.python_home,
            "HTTPD_USER": httpd_account.user,
            "HTTPD_GROUP": httpd_account.group,
            "SITE_USER": site_account.user,
            "SITE_GROUP": site_account.group,
            "OPTIONS": f"processes={self.settings.processes} {self.settings.options}",
        }
        if self.settings.service:
            values["SERVICE"] = 1
        if self.settings.tls:
            values["TLS_PORT"] = self.tls_port
        conf = self.root / "httpd.conf"
        return machine.write_defines(conf, values, self.root / "faults.conf")

    def refusal(self) -> str:
        """What `httpd -t` has against the configuration; empty if nothing."""
        command = [machine.httpd(), "-t", "-f", self.configuration()]
        answer = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE)
        return answer.stderr if answer.returncode else ""

    def start(self) -> None:
        """Starts it, with nothing left of what ran before."""
        self.log.unlink(missing_ok=True)
        for folder in (self.root / "run", self.root / "site" / "run"):
            for left in folder.iterdir():
                left.unlink()
        for name in ("started", "beats"):
            path = self.root / "site" / "run" / name
            path.touch()
            path.chmod(0o666)
        for name in ("app.wsgi", "feature.py"):
            self.write_script(name)
        command = [machine.httpd(), "-f", self.configuration(), "-D", "FOREGROUND"]
        with open(self.root / "logs" / "terminal.log", "wb") as terminal:
            self.process = subprocess.Popen(
                machine.with_family(command), start_new_session=True, stderr=terminal
            )
        self.wait_for_log(RESUMED, 0)

    def stop(self) -> None:
        """Ends it and all it began, whatever state that is in."""
        if self.process:
            machine.end_family(self.process)

    def signal(self, number: int) -> None:
        """Sends httpd's parent a signal."""
        self.process.send_signal(number)

    def reload(self, number: int) -> None:
        """Has httpd read its configuration anew, and waits until it has."""
        before = self.log.stat().st_size
        self.signal(number)
        self.wait_for_log(RESUMED, before)

    def text(self, since: int = 0) -> str:
        """The error log, from a place in it."""
        if not self.log.exists():
            return ""
        with open(self.log, encoding="utf-8", errors="replace") as log:
            log.seek(since)
            return log.read()

    def wait_for_log(self, text: str, since: int) -> None:
        """Waits until the log has `text` beyond a place in it."""

        def is_over() -> bool:
            return text in self.text(since) or self.process.poll() is not None

        if not machine.wait_until(is_over, PATIENCE):
            raise Missing(f"'{text}' is not in the log\n{self.text()[-3000:]}")
        if self.process.poll() is not None:
            terminal = (self.root / "logs" / "terminal.log").read_text(errors="replace")
            raise Missing(f"httpd ended\n{terminal}{self.text()[-3000:]}")

    def family(self) -> dict[int, str]:
        """All live processes of this httpd with their titles."""
        found = {}
        for pid in machine.family_of(self.leader):
            with contextlib.suppress(OSError):
                title = Path(f"/proc/{pid}/cmdline").read_bytes()
                found[pid] = title.replace(b"\0", b" ").decode(errors="replace").strip()
        return found

    def titled(self, title: str) -> list[int]:
        """The processes whose title begins so."""
        return sorted(pid for pid, name in self.family().items() if name.startswith(title))

    def daemons(self) -> list[int]:
        """The daemon processes of the group under load."""
        return self.titled(GROUP)

    def children(self) -> list[int]:
        """The child processes of httpd itself."""
        ours = (GROUP, SERVICE, SUPERVISOR, SPARE)
        family = self.family().items()
        return [pid for pid, name in family if pid != self.leader and not name.startswith(ours)]

    def started(self) -> set[str]:
        """The names of the requests that got as far as the application."""
        return set((self.root / "site" / "run" / "started").read_text().split())

    def write_script(self, name: str, broken: bool = False) -> int:
        """Deploys a script: a new file in the place of the old one; its time."""
        source = (HERE / "site" / name).read_text()
        if broken:
            source = 'raise ImportError("a version that is broken")\n'
        fresh = self.root / "site" / f"{name}.new"
        fresh.write_text(source)
        fresh.chmod(0o644)
        version = fresh.stat().st_mtime_ns
        fresh.rename(self.root / "site" / name)
        return version

    def touch(self, name: str) -> int:
        """Makes a script look new; the time it has from here on."""
        path = self.root / "site" / name
        os.utime(path)
        return path.stat().st_mtime_ns

    def leftovers(self) -> list[str]:
        """What a server that is gone has left: processes, files, shared memory."""
        left = [f"process {pid}" for pid in machine.family_of(self.leader)]
        left += [f"run/{path.name}" for path in (self.root / "run").iterdir()]
        segments = Path("/proc/sysvipc/shm").read_text().splitlines()[1:]
        # key, shmid, perms, size, cpid: the process that made it.
        return left + [f"shm {s.split()[1]}" for s in segments if int(s.split()[4]) == self.leader]


@contextlib.contextmanager
def running(subject: Subject, settings: Settings) -> Iterator[Httpd]:
    """An httpd that is gone afterwards."""
    httpd = Httpd(subject, settings)
    try:
        httpd.start()
        yield httpd
    finally:
        httpd.stop()


def took(what: Callable[[], object], seconds: float) -> float | None:
    """How long it took until `what` was true; `None` if it never was."""
    began = time.monotonic()
    return time.monotonic() - began if machine.wait_until(what, seconds, 0.005) else None


def kill(pid: int, number: int = signal.SIGKILL) -> None:
    """Sends a signal to a process that may be gone."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)
