"""Stops httpd again and again while it answers, and looks at every core."""

from __future__ import annotations

import random
import signal

import machine
from machine import say
from server import KINDS, Cell, Server, Subject, launch, listen_to_telemetry, stop


def under_load(server: Server, before_the_end: list[signal.Signals]) -> None:
    """Sends what comes into its mind, and signals, and stops httpd in the midst of it."""
    runs = []
    for kind in random.sample(KINDS, 3):
        runs += server.start(kind, 5000)
    try:
        for number in before_the_end:
            # Either restart ends children, the one at once.
            server.note_stop()
            seen = server.log.count("resuming normal operations")
            server.httpd.send_signal(number)
            machine.wait_until(
                lambda seen=seen: server.log.count("resuming normal operations") > seen, 60
            )
        server.ask("main", "small")
        stop(server)
    finally:
        for run in runs:
            run.kill()
            run.wait()


def stop_often(cell: Cell, subject: Subject, times: int) -> list[str]:
    """What is wrong with so many stops, every third of them after a restart."""
    complaints = []
    restarts = ([], [signal.SIGUSR1], [signal.SIGHUP])
    for number in range(times):
        server = launch(cell, subject)
        receiver = listen_to_telemetry(server.root) if subject.watched else None
        try:
            under_load(server, list(restarts[number % 3]))
        except (AssertionError, OSError) as error:
            complaints.append(f"{cell.name}, stop {number}: {error}")
            say(complaints[-1])
            machine.end_family(server.httpd)
        finally:
            if receiver:
                receiver.close()
        if number % 20 == 19:
            say(f"{cell.name}: {number + 1} stops")
    say(f"{cell.name}: {times} stops under load, {len(complaints)} complaints")
    return complaints
