"""Runs the demo: one httpd, three applications; Ctrl-C ends it and leaves nothing running.

Everything it writes lies under target/demo.  Only the standard library is needed.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import fcntl
import os
import re
import secrets
import shutil
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import machine
from machine import Account, Missing, Python, say

EXAMPLES = Path(__file__).resolve().parent
CACHE = machine.REPOSITORY / "target" / "demo"
APPLICATIONS = ("notebook", "greeter", "which_python")
REQUIREMENTS = ("Django>=5.2,<5.3", "Flask>=3.1,<3.2")


@dataclass
class Demo:
    """What one run of the demo consists of."""

    root: Path
    port: int
    module: Path
    httpd_account: Account
    site_account: Account
    python: Python
    second: Python | None
    django_embedded: bool
    password: str

    @property
    def url(self) -> str:
        """Where the demo answers."""
        return f"http://127.0.0.1:{self.port}"


def arguments() -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--port", type=int, help="default: 8080, or the next free one")
    parser.add_argument("--django", choices=["daemon", "embedded"], default="daemon")
    parser.add_argument("--check", action="store_true", help="ask every page, then stop")
    parser.add_argument("--browser", action="store_true", help="visit with Chromium, then stop")
    parser.add_argument("--pictures", type=Path, help="where --browser keeps what it saw")
    parser.add_argument("--profile", default="release", help="which build to run")
    return parser.parse_args()


def built_module(profile: str) -> Path:
    """The module to load: `$WSGI_MODULE`, or what `make` built."""
    named = os.environ.get("WSGI_MODULE")
    module = Path(named) if named else machine.REPOSITORY / "target" / profile / "mod_wsgi_rs.so"
    if not module.is_file():
        raise Missing(f"{module} is not there: run `make` first")
    return module


def virtual_environment(python: Python) -> None:
    """Makes target/demo/venv, unless it is there and has what is asked for."""
    venv = CACHE / "venv"
    stamp = venv / "made-for"
    wanted = "\n".join([python.executable, python.name, *REQUIREMENTS])
    if stamp.is_file() and stamp.read_text() == wanted:
        return
    say(f"Making a virtual environment with Django and Flask (Python {python.name}) ...")
    shutil.rmtree(venv, ignore_errors=True)
    subprocess.run([python.executable, "-m", "venv", venv], check=True)
    pip = [venv / "bin" / "python", "-m", "pip", "install", "--quiet"]
    pip.append("--disable-pip-version-check")
    if subprocess.run([*pip, *REQUIREMENTS], check=False).returncode != 0:
        raise Missing("pip could not install Django and Flask; what it said is above")
    stamp.write_text(wanted)


def reachable(python: Python, account: Account) -> Python:
    """The Python itself, or a copy where the user `account` may read its own."""
    if os.getuid() != 0 or machine.readable_by_all(python.prefix):
        return python
    say(f"Using a copy of Python {python.name}: user {account.user} may not read {python.prefix}.")
    return machine.copy_python(python, CACHE)


def move_in(demo: Demo) -> None:
    """Copies what httpd's and the site's users have to read below the server root."""
    root = demo.root
    for folder in ("run", "logs", "modules", "data"):
        (root / folder).mkdir(exist_ok=True)
    # A log of an earlier run would be taken for this one's.
    for log in (root / "logs").iterdir():
        log.unlink()
    shutil.rmtree(root / "apps", ignore_errors=True)
    for name in APPLICATIONS:
        leave_out = shutil.ignore_patterns("__pycache__")
        shutil.copytree(EXAMPLES / name, root / "apps" / name, ignore=leave_out)
    halves = [demo.module, *demo.module.parent.glob("wsgi_python.*.so")]
    for half in halves:
        # A new file each time: an old one may still be mapped by a process.
        target = root / "modules" / half.name
        target.unlink(missing_ok=True)
        shutil.copy(half, target)
    if root != CACHE:
        relocate(demo)
    for name in ("apps", "modules"):
        machine.make_readable(root / name)


def relocate(demo: Demo) -> None:
    """Brings the virtual environment and copied Pythons to a server root elsewhere."""
    for tree in [CACHE / "venv", *CACHE.glob("python3.*")]:
        shutil.copytree(tree, demo.root / tree.name, symlinks=True)
    settings = demo.root / "venv" / "pyvenv.cfg"
    settings.write_text(settings.read_text().replace(str(CACHE), str(demo.root)))


def prepare_site(demo: Demo) -> None:
    """Makes the site's data, readable by nobody but the user it runs as."""
    data = demo.root / "data"
    key = data / "secret_key"
    if not key.exists():
        key.write_text(secrets.token_urlsafe(50))
    manage = demo.root / "apps" / "notebook" / "manage.py"
    environment = {**os.environ, "NOTEBOOK_PASSWORD": demo.password}
    python = demo.root / "venv" / "bin" / "python"
    subprocess.run([python, "-B", manage, "prepare_demo"], check=True, env=environment)
    machine.make_readable(demo.root / "static")
    if os.getuid() == 0:
        owner = demo.httpd_account if demo.django_embedded else demo.site_account
        hand_over(data, owner)
    data.chmod(0o700)


def hand_over(tree: Path, owner: Account) -> None:
    """Gives `tree` to a user."""
    uid, gid = owner.ids
    for folder, _, files in os.walk(tree):
        os.chown(folder, uid, gid)
        for name in files:
            os.chown(os.path.join(folder, name), uid, gid, follow_symlinks=False)


def write_configuration(demo: Demo) -> Path:
    """Writes httpd.conf: the values for the names in demo.conf, and demo.conf itself."""
    values = {
        "ROOT": demo.root,
        "PORT": demo.port,
        "MODULES": machine.httpd_modules(),
        "WSGI_MODULE": demo.root / "modules" / demo.module.name,
        "HTTPD_USER": demo.httpd_account.user,
        "HTTPD_GROUP": demo.httpd_account.group,
        "SITE_USER": demo.site_account.user,
        "SITE_GROUP": demo.site_account.group,
    }
    if demo.second:
        values["SECOND_PYTHON"] = demo.second.prefix
    if demo.django_embedded:
        values["DJANGO_EMBEDDED"] = ""
    shutil.copy(EXAMPLES / "demo.conf", demo.root)
    return machine.write_defines(demo.root / "httpd.conf", values, demo.root / "demo.conf")


def die_with_parent() -> None:
    """Has the kernel stop httpd if this script is killed without a chance to do it."""
    prctl_set_pdeathsig = 1
    ctypes.CDLL(None).prctl(prctl_set_pdeathsig, signal.SIGTERM)


@contextlib.contextmanager
def running_httpd(demo: Demo, configuration: Path) -> Iterator[subprocess.Popen]:
    """Starts httpd in a session of its own; at the end nothing that it started is left."""
    command = machine.with_family([machine.httpd(), "-f", configuration, "-D", "FOREGROUND"])
    process = subprocess.Popen(command, start_new_session=True, preexec_fn=die_with_parent)
    try:
        yield process
    finally:
        stop(process)


def stop(process: subprocess.Popen) -> None:
    """Ends httpd and waits until all its processes are gone."""
    # A second Ctrl-C must not keep the first from being carried out.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(timeout=20)
    if machine.wait_until(lambda: not machine.family_of(process.pid), 10):
        return
    left = machine.family_of(process.pid)
    for pid in left:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    process.wait(timeout=10)
    raise Missing(f"httpd left processes behind, now killed: {left}")


def wait_for_answer(demo: Demo, process: subprocess.Popen) -> None:
    """Waits until the site answers; otherwise shows the log."""

    def answers() -> bool:
        if process.poll() is not None:
            return True
        try:
            with urllib.request.urlopen(f"{demo.url}/where", timeout=20) as answer:
                return answer.status == 200
        except urllib.error.HTTPError as error:
            raise Missing(f"the site answers {error.code}\n{log_tail(demo)}") from error
        except OSError:
            return False

    if not machine.wait_until(answers, 30) or process.poll() is not None:
        raise Missing(f"httpd did not start\n{log_tail(demo)}")


def log_tail(demo: Demo) -> str:
    """The end of httpd's error log."""
    log = demo.root / "logs" / "error.log"
    return "\n".join(log.read_text().splitlines()[-30:]) if log.exists() else "(no log)"


def introduce(demo: Demo) -> None:
    """Prints what runs where."""
    mode = "embedded in httpd" if demo.django_embedded else "daemon group 'notebook', 2 processes"
    user = demo.httpd_account.user if demo.django_embedded else demo.site_account.user
    python = f"Python {demo.python.name}"
    say("")
    say(f"  {demo.url}/         Django, {mode}, user {user}, {python}")
    say(f"  {demo.url}/admin/   its admin: log in as admin, password {demo.password}")
    say(f"  {demo.url}/flask/   Flask, embedded in httpd, user {demo.httpd_account.user}, {python}")
    if demo.second:
        where = f"daemon group 'other-python', Python {demo.second.name}"
        say(f"  {demo.url}/python   plain WSGI, {where}")
    else:
        say("  (no second Python with a shared library here, so no third application)")
    say("")
    say(f"  configuration  {EXAMPLES / 'demo.conf'}")
    say(f"  applications   {demo.root / 'apps'}   edit them there, they reload")
    say(f"  error log      {demo.root / 'logs' / 'error.log'}")
    say("")


def port(wanted: int | None) -> int:
    """The port asked for, else 8080 or the next free one."""
    found = machine.free_port(wanted or 8080)
    if wanted and found != wanted:
        raise Missing(f"something listens on port {wanted} already; port {found} is free")
    return found


def prepare(options: argparse.Namespace, root: Path) -> Demo:
    """Finds out what the machine has and makes everything ready."""
    httpd_account, site_account = machine.accounts()
    python = reachable(machine.choose_python(), site_account)
    second = machine.second_python(python)
    if os.environ.get("WSGI_MODULE"):
        # Another module may not know a Python per group.
        second = None
    if second:
        second = reachable(second, site_account)
    virtual_environment(python)
    demo = Demo(
        root=root,
        port=port(options.port),
        module=built_module(options.profile),
        httpd_account=httpd_account,
        site_account=site_account,
        python=python,
        second=second,
        django_embedded=options.django == "embedded",
        password=secrets.token_urlsafe(9),
    )
    move_in(demo)
    if second and root != CACHE and second.prefix.startswith(str(CACHE)):
        demo.second = machine.copy_python(second, root)
    prepare_site(demo)
    return demo


def check(demo: Demo) -> int:
    """Runs check.py against the demo."""
    command = [sys.executable, EXAMPLES / "check.py", demo.url, "--password", demo.password]
    command += ["--django-group", "" if demo.django_embedded else "notebook"]
    command += ["--error-log", demo.root / "logs" / "error.log"]
    if demo.second:
        command += ["--second-python", demo.second.name]
    return subprocess.run(command, check=False, timeout=300).returncode


def visit(demo: Demo, pictures: Path | None) -> int:
    """Runs browser_session.py against the demo."""
    command = [sys.executable, "-B", EXAMPLES / "browser_session.py", demo.url]
    command += ["--password", demo.password]
    if pictures:
        command += ["--pictures", pictures]
    return subprocess.run(command, check=False, timeout=600).returncode


@contextlib.contextmanager
def alone() -> Iterator[None]:
    """Keeps a second demo from taking away what this one runs from."""
    CACHE.mkdir(parents=True, exist_ok=True)
    # Opened to read: root's demo may have made it, and another user's comes after.
    handle = os.open(CACHE, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise Missing(f"a demo of this clone is running already, in {CACHE}") from error
    try:
        yield
    finally:
        os.close(handle)


def run(options: argparse.Namespace) -> int:
    """The whole demo, from nothing to nothing."""
    with alone(), machine.server_root(CACHE, "mod_wsgi_rs-demo-") as root:
        demo = prepare(options, root)
        with running_httpd(demo, write_configuration(demo)) as process:
            wait_for_answer(demo, process)
            introduce(demo)
            if not options.check and not options.browser:
                say("  Ctrl-C stops it.")
                process.wait()
                raise Missing(f"httpd ended by itself\n{log_tail(demo)}")
            status = check(demo) if options.check else 0
            if options.browser:
                status = visit(demo, options.pictures) or status
        expect_a_clean_end(demo)
        return status


def expect_a_clean_end(demo: Demo) -> None:
    """Looks in the log for processes that crashed, the last moment included."""
    log = (demo.root / "logs" / "error.log").read_text(errors="replace")
    crash = re.compile(r"exit signal|Fatal Python error|panicked|was ended by signal")
    lines = [line for line in log.splitlines() if crash.search(line)]
    if lines:
        raise Missing("a process crashed:\n" + "\n".join(lines))


def interrupted(_number: int, _frame: object) -> None:
    """Turns a signal into the end of the demo."""
    raise KeyboardInterrupt


def main() -> int:
    """Runs the demo until it is stopped."""
    os.umask(0o022)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, interrupted)
    try:
        return run(arguments())
    except KeyboardInterrupt:
        say("\nStopped; nothing is left running.")
        return 0
    except (Missing, OSError, subprocess.SubprocessError) as error:
        return machine.fail(error)


if __name__ == "__main__":
    sys.exit(main())
