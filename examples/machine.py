"""What this machine offers: httpd, Pythons, accounts, a free port, and who may read what."""

from __future__ import annotations

import contextlib
import functools
import glob
import grp
import json
import os
import pwd
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent

# Where system binaries are that an ordinary user's PATH may lack.
SYSTEM_PATH = os.environ.get("PATH", "") + ":/usr/local/sbin:/usr/sbin:/sbin"

# The versions one build of the Python half serves.
OLDEST_PYTHON = (3, 10)
NEWEST_PYTHON = (3, 15)


class Missing(Exception):
    """Something the machine has to have; the text says what and how to get it."""


@functools.lru_cache(maxsize=None)
def apxs(query: str) -> str:
    """Asks apxs; an empty answer if there is none."""
    tool = os.environ.get("APXS") or shutil.which("apxs", path=SYSTEM_PATH)
    tool = tool or shutil.which("apxs2", path=SYSTEM_PATH)
    if not tool:
        return ""
    answer = subprocess.run([tool, "-q", query], capture_output=True, text=True, check=False)
    return answer.stdout.strip()


def httpd() -> str:
    """The httpd to run: `$HTTPD`, else apxs's, else the one on the path."""
    candidates = [os.environ.get("HTTPD", ""), f"{apxs('SBINDIR')}/{apxs('PROGNAME')}"]
    candidates += [shutil.which(name, path=SYSTEM_PATH) or "" for name in ("httpd", "apache2")]
    for candidate in candidates:
        if candidate and os.access(candidate, os.X_OK) and os.path.isfile(candidate):
            return candidate
    raise Missing("no httpd found: run `make deps`, or name it with HTTPD=/path/to/httpd")


def httpd_modules() -> str:
    """The directory of httpd's own modules."""
    candidates = [os.environ.get("HTTPD_MODULES", ""), apxs("LIBEXECDIR")]
    candidates += ["/usr/lib/apache2/modules", "/usr/lib64/httpd/modules", "/usr/lib/httpd/modules"]
    for candidate in candidates:
        if candidate and os.path.isdir(candidate):
            return candidate
    raise Missing("httpd's modules not found: name their directory with HTTPD_MODULES=/path")


@dataclass(frozen=True)
class Python:
    """An installed CPython with a shared library."""

    executable: str
    version: tuple[int, int, int]
    prefix: str
    library: str
    makes_venvs: bool
    # Needs `make PYTHON=`; nothing here uses such a one without being told to.
    is_free_threaded: bool = False

    @property
    def name(self) -> str:
        """The version as people write it."""
        return ".".join(map(str, self.version))


PROBE = """
import importlib.util as u, json, sys, sysconfig as s
print(json.dumps({
    "executable": sys.executable,
    "version": sys.version_info[:3],
    "prefix": sys.base_prefix,
    "names": [s.get_config_var("INSTSONAME"), s.get_config_var("LDLIBRARY")],
    "dirs": [s.get_config_var("LIBDIR"), sys.base_prefix + "/lib", sys.base_prefix + "/lib64"],
    "venv": bool(u.find_spec("venv") and u.find_spec("ensurepip")),
    "is_free_threaded": bool(s.get_config_var("Py_GIL_DISABLED")),
}))
"""


def probe(executable: str) -> Python | None:
    """Asks one interpreter about itself; `None` if a group could not run it."""
    command = [executable, "-I", "-c", PROBE]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    facts = json.loads(answer.stdout)
    version = tuple(facts["version"])
    if not OLDEST_PYTHON <= version[:2] <= NEWEST_PYTHON:
        return None
    for folder in facts["dirs"]:
        for name in facts["names"]:
            library = f"{folder}/{name}"
            if name and ".so" in name and os.path.exists(library):
                return Python(
                    facts["executable"], version, facts["prefix"], library, facts["venv"],
                    facts["is_free_threaded"],
                )
    return None


@functools.lru_cache(maxsize=None)
def pythons() -> tuple[Python, ...]:
    """Every usable Python of the machine, the one `python3` means first."""
    names = [f"python3.{minor}" for minor in range(OLDEST_PYTHON[1], NEWEST_PYTHON[1] + 1)]
    found = [shutil.which("python3") or "", "/usr/bin/python3"]
    found += [shutil.which(name) or "" for name in names]
    for pattern in ("/usr/bin", "/usr/local/bin", "/opt/*/bin", "~/.pyenv/versions/*/bin"):
        for name in names:
            found += sorted(glob.glob(f"{os.path.expanduser(pattern)}/{name}"))
    distinct: dict[str, Python] = {}
    for executable in dict.fromkeys(found):
        python = probe(executable) if executable else None
        if python and not python.is_free_threaded:
            distinct.setdefault(python.prefix, python)
    return tuple(distinct.values())


def choose_python() -> Python:
    """The Python of the virtual environment, by preference one that everybody may read."""
    suitable = [python for python in pythons() if python.makes_venvs]
    if not suitable:
        raise Missing(
            "no Python 3.10-3.15 with a shared library and the venv module: run `make deps`"
        )
    return next((python for python in suitable if readable_by_all(python.prefix)), suitable[0])


def second_python(first: Python) -> Python | None:
    """A Python of another minor version, the newest; `None` if the machine has none."""
    others = [python for python in pythons() if python.version[:2] != first.version[:2]]
    return max(others, key=lambda python: python.version, default=None)


def readable_by_all(path: str | Path) -> bool:
    """Whether a user without privileges gets to the directory `path`."""
    place = Path(path).resolve()
    for folder in [place, *place.parents]:
        if not os.stat(folder).st_mode & stat.S_IXOTH:
            return False
    return bool(os.stat(place).st_mode & stat.S_IROTH)


def make_readable(tree: Path) -> None:
    """Lets everybody read what lies under `tree`, whatever umask it was made with."""
    for folder, _, files in os.walk(tree):
        os.chmod(folder, os.stat(folder).st_mode | 0o755)
        for name in files:
            path = os.path.join(folder, name)
            if not os.path.islink(path):
                os.chmod(path, os.stat(path).st_mode | 0o444)


def copy_python(python: Python, into: Path) -> Python:
    """Copies a Python to where everybody may read it, without what only developers use."""
    short = f"python3.{python.version[1]}"
    home = into / short
    library = home / "lib" / Path(python.library).name
    copied = Python(str(home / "bin" / short), python.version, str(home), str(library), True)
    if probe(copied.executable) == copied:
        return copied
    shutil.rmtree(home, ignore_errors=True)
    source = Path(python.prefix)
    unneeded = shutil.ignore_patterns(
        "test", "tests", "idlelib", "lib2to3", "site-packages", "tkinter", "turtledemo", "config-*"
    )
    shutil.copytree(source / "lib" / short, home / "lib" / short, ignore=unneeded)
    (home / "lib" / short / "site-packages").mkdir()
    for name in glob.glob(f"{Path(python.library).parent}/libpython3.{python.version[1]}.so*"):
        shutil.copy(name, home / "lib")
    (home / "bin").mkdir()
    shutil.copy(source / "bin" / short, home / "bin")
    for link in ("python", "python3"):
        (home / "bin" / link).symlink_to(short)
    make_readable(home)
    return copied


@dataclass(frozen=True)
class Account:
    """A user and the group it goes with."""

    user: str
    group: str

    @property
    def ids(self) -> tuple[int, int]:
        """The numbers behind the names."""
        return pwd.getpwnam(self.user).pw_uid, grp.getgrnam(self.group).gr_gid


def accounts() -> tuple[Account, Account]:
    """Whom httpd and the site run as: two users if root starts them, else the caller."""
    if os.getuid() != 0:
        me = pwd.getpwuid(os.getuid())
        own = Account(me.pw_name, grp.getgrgid(os.getgid()).gr_name)
        return own, own
    known = []
    for name in ("www-data", "apache", "http", "daemon", "nobody"):
        try:
            entry = pwd.getpwnam(name)
            known.append(Account(name, grp.getgrgid(entry.pw_gid).gr_name))
        except KeyError:
            continue
    if not known:
        raise Missing("no account to run httpd as: expected www-data, apache or nobody")
    return known[0], known[-1]


@contextlib.contextmanager
def server_root(usual: Path, prefix: str) -> Iterator[Path]:
    """Where httpd runs: `usual`, or a temporary directory if its users cannot reach that."""
    usual.mkdir(parents=True, exist_ok=True)
    if os.getuid() != 0 or readable_by_all(usual):
        yield usual
        return
    root = Path(tempfile.mkdtemp(prefix=prefix))
    try:
        root.chmod(0o755)
        yield root
    finally:
        shutil.rmtree(root, ignore_errors=True)


def write_defines(path: Path, values: dict[str, object], included: Path) -> Path:
    """Writes a configuration that defines `values` and includes the file that uses them."""
    lines = [f'Define {name} "{value}"' for name, value in values.items()]
    path.write_text("\n".join([*lines, f'Include "{included}"', ""]))
    return path


def free_port(first: int) -> int:
    """`first`, or the next port nobody listens on."""
    for port in range(first, first + 100):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise Missing(f"no free port from {first} to {first + 99}: name one with --port")


def with_family(command: list[object]) -> list[object]:
    """`command`, to be started so that `family_of` its process id finds what it starts."""
    return ["sh", "-c", 'WSGI_FAMILY=$$ exec "$@"', "sh", *command]


def family_of(leader: int) -> dict[int, str]:
    """The live processes that `leader` began, by process id, with their names.

    Daemon processes have sessions of their own and may outlive who started them, so they are
    known by a variable of the environment they were born with.
    """
    mark = f"WSGI_FAMILY={leader}".encode()
    found = {}
    for entry in os.listdir("/proc"):
        if not entry.isdigit():
            continue
        try:
            text = Path(f"/proc/{entry}/stat").read_text()
            environment = Path(f"/proc/{entry}/environ").read_bytes()
        except OSError:
            continue
        name, _, rest = text.partition("(")[2].rpartition(")")
        if mark in environment.split(b"\0") and rest.split()[0] not in "ZX":
            found[int(entry)] = name
    return found


def end_family(leader: subprocess.Popen) -> None:
    """Stops `leader`; whatever it began that does not go with it is killed."""
    if leader.poll() is None:
        leader.send_signal(signal.SIGTERM)
    wait_until(lambda: leader.poll() is not None, 20)
    wait_until(lambda: not family_of(leader.pid), 10)
    for pid in family_of(leader.pid):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    leader.wait(10)


def wait_until(what: Callable[[], object], seconds: float, every: float = 0.02) -> bool:
    """Asks `what` again and again; false when the time is up."""
    deadline = time.monotonic() + seconds
    while not what():
        if time.monotonic() > deadline:
            return False
        time.sleep(every)
    return True


def say(text: str) -> None:
    """Tells the person at the terminal."""
    print(text, flush=True)


def fail(error: Exception) -> int:
    """Reports why it does not go on; the exit status."""
    print(f"{Path(sys.argv[0]).name}: {error}", file=sys.stderr, flush=True)
    return 1
