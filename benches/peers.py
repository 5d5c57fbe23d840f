"""The servers we are compared with, installed from PyPI into target/bench/peers."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "examples"))

import machine  # noqa: E402 - it lies in examples/
from machine import Missing, Python, say  # noqa: E402

BENCH = machine.REPOSITORY / "target" / "bench"
MOD_WSGI = "mod_wsgi==6.1.1"
# What runs behind mod_proxy, and what the applications are made with.  `wheel` is
# what uWSGI and mod_wsgi need to be built in one way with every pip.
OTHERS = (
    "wheel", "uWSGI==2.0.31", "gunicorn==27.0.1", "granian==2.8.7", "flask==3.1.3",
    "django==5.2.19",
)


def home(python: Python, wanted: tuple[str, ...] = (MOD_WSGI, *OTHERS)) -> Path:
    """The virtual environment that holds `wanted`, made once."""
    venv = BENCH / "peers"
    stamp = venv / "made-for"
    made = stamp.read_text().split("\n") if stamp.is_file() else []
    identity = f"{python.executable} {python.name}"
    if not made or made[0] != identity:
        shutil.rmtree(venv, ignore_errors=True)
        BENCH.mkdir(parents=True, exist_ok=True)
        subprocess.run([python.executable, "-m", "venv", venv], check=True)
        made = [identity]
    lacking = [package for package in wanted if package not in made]
    if lacking:
        say(f"Installing {', '.join(lacking)} for Python {python.name} ...")
        # The build of mod_wsgi asks the first python3.x-config of the path which
        # library to link: it has to be this Python's, not a version manager's.
        path = f"{Path(python.executable).parent}:/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin"
        pip = [venv / "bin" / "python", "-m", "pip", "install", "--quiet"]
        pip += ["--disable-pip-version-check", "--no-cache-dir", *lacking]
        subprocess.run(pip, check=True, env={**os.environ, "PATH": path})
        stamp.write_text("\n".join([*made, *lacking]))
    machine.make_readable(venv)
    return venv


def module(venv: Path) -> Path:
    """mod_wsgi's own module in `venv`."""
    built = list(venv.glob("lib*/python3.*/site-packages/mod_wsgi/server/*.so"))
    if not built:
        raise Missing("mod_wsgi was installed, but its module is not where it should be")
    return built[0]


def peer_module(python: Python) -> Path:
    """The module of mod_wsgi, built if need be; nothing else is installed."""
    return module(home(python, (MOD_WSGI,)))
