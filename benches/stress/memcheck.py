"""The cells under valgrind's memcheck: few requests, and everything that disturbs them."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import machine
from machine import Missing, say
from server import HERE, MOUNTS, Cell, Server, Subject, running

# How frames of ours are named.
OURS = r"mod_wsgi_rs|wsgi_python|wsgi_wire"
WAIT = 300


def is_ours(record: str) -> bool:
    """Whether a record of valgrind is one to look at.

    An optimised CPython reads what is not initialised, harmlessly, far above our frames.
    """
    if re.search(r"^(Invalid|Mismatched|Jump to the invalid|Process terminating)", record, re.M):
        return True
    frames = [line for line in record.splitlines() if re.match(r" *(at|by) 0x", line)]
    return any(re.search(OURS, frame) for frame in frames[:12])


def tool(logs: Path) -> dict[str, str]:
    """The variables that have httpd's processes run under memcheck.

    Not on the command line: a daemon process writes its title over that.
    """
    if not shutil.which("valgrind"):
        raise Missing("valgrind is not there: run `make deps`")
    library = logs / "pidfd.so"
    source = HERE.parent / "instructions" / "pidfd.c"
    subprocess.run(["cc", "-shared", "-fPIC", "-o", library, source, "-ldl"], check=True)
    options = [
        f"--log-file={logs}/%p.log", "--quiet", "--vgdb=no", "--trace-children=yes",
        "--child-silent-after-fork=no", "--num-callers=40", "--leak-check=full",
        "--show-leak-kinds=definite", "--errors-for-leak-kinds=definite", "--fair-sched=yes",
        f"--suppressions={HERE}/valgrind.supp", "--keep-debuginfo=yes",
    ]
    return {
        "VALGRIND_OPTS": " ".join(options), "LD_PRELOAD": str(library), "PYTHONMALLOC": "malloc",
    }


def disturb(server: Server) -> int:
    """Does what happens to a server now and then, under requests; how many went wrong."""
    with ThreadPoolExecutor(8) as pool:
        for mount in MOUNTS:
            pool.submit(server.give_up, mount).result()
        late = []
        if server.cell.mode == "daemon":
            late = [pool.submit(server.ask, mount, "late", WAIT) for mount in MOUNTS]
        answers = [future.result() for future in late]
    wrong = sum(answer != "interrupted" for answer in answers)
    for change in (touch, graceful):
        runs = server.start("small", 24)
        change(server)
        for run in runs:
            run.communicate()
        wrong += server.send(0)
    return wrong


def touch(server: Server) -> None:
    """Changes the script, which is loaded again."""
    script = server.root / "site.wsgi"
    script.write_text(script.read_text() + "\n# changed\n")


def graceful(server: Server) -> None:
    """Restarts httpd as `apachectl graceful` does."""
    before = server.log.count("resuming normal operations")
    server.httpd.send_signal(signal.SIGUSR1)
    if not machine.wait_until(
        lambda: server.log.count("resuming normal operations") > before, WAIT, 0.1
    ):
        raise AssertionError(f"no graceful restart: {server.log[-2000:]}")


def under_valgrind(cell: Cell, subject: Subject, requests: int) -> list[str]:
    """What valgrind says of a few requests: bad reads and writes, and leaks of our own."""
    logs = Path(tempfile.mkdtemp(prefix="wsgi-valgrind-"))
    logs.chmod(0o777)
    os.umask(0o022)
    subject = replace(
        subject, watched=True, around=("valgrind",), variables=tuple(tool(logs).items())
    )
    with running(cell, subject) as server:
        wrong = server.send(requests)
        wrong += disturb(server)
    records = []
    for log in sorted(logs.glob("*.log")):
        text = re.sub(r"^==\d+== ?", "", log.read_text(errors="replace"), flags=re.M)
        records += [record for record in text.split("\n\n") if re.search("(by|at) 0x", record)]
    processes = len(list(logs.glob("*.log")))
    kept = machine.REPOSITORY / "target" / f"valgrind-{cell.mode}-{cell.lock}.txt"
    kept.write_text("\n\n".join(records))
    shutil.rmtree(logs, ignore_errors=True)
    ours = [record for record in records if is_ours(record)]
    say(
        f"{cell.name}: {processes} processes, {len(records)} records of valgrind, "
        f"{len(ours)} of ours; {wrong} wrong"
    )
    return [f"{cell.name}: {record}" for record in ours] + (["requests went wrong"] * bool(wrong))
