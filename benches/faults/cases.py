"""The cases: what is done to a server under load, and what may come of it."""

from __future__ import annotations

import math
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum

from clients import KINDS, Clients, Load, Record, Seen
from server import SERVICE, SUPERVISOR, Httpd, Settings, kill, machine, took

# The steady load: quick requests of all sorts, some of three seconds, and files that httpd
# serves by itself as a control.
QUICK = [
    Clients("fast", 3),
    Clients("stream", 1),
    Clients("post", 1),
    Clients("heavy", 2),
]
SLOW = [Clients("slow", 4, pause=0.2)]
STATIC = [Clients("static", 2)]
STEADY = [QUICK, SLOW, STATIC]
# Where the group has but five threads, all of which get stuck.
SMALL = [[Clients("fast", 3)], STATIC]
FEW_THREADS = 5
# Of each process otherwise.
THREADS = 15

# What an answer may be late, in seconds.
LATE = 0.25
# What the import of heavy.wsgi takes.
IMPORT = 1.0
# Before the first event, and after the last: the slow requests it met are over by then.
LEAD = 2.0
SETTLE = 4.0
# Between two events of a case.
SPACING = 1.5
PATIENCE = 20.0

# Kinds that measure how long nobody was served.
STEADY_KINDS = {"fast", "stream", "post", "heavy"}
# Kinds whose failure is the case's own doing.
FAULTY_KINDS = {"stuck", "held", "hog", "exit", "abort"}


class Allowed(Enum):
    """Which requests may fail."""

    NONE = "none"
    # Those whose application was at work.
    STARTED = "started"
    # Those whose connection httpd itself cut: no answer at all, or less than one.
    CUT = "cut"
    # The same, and those that came to the door when it was closed.
    STOPPED = "stopped"
    # All: there is nobody left to answer.
    ALL = "all"
    # Those begun before `Scene.mended`.
    UNTIL_MENDED = "until mended"


@dataclass
class Scene:
    """A server under load, and what happened to it."""

    httpd: Httpd
    load: Load | None = None
    # Of a load that ended while the case went on.
    seen: list[Seen] = field(default_factory=list)
    # When something was done.
    events: list[float] = field(default_factory=list)
    # What a reader of the table should know.
    notes: list[str] = field(default_factory=list)
    # What should have happened and did not, or was wrong in another way than a request.
    faults: list[str] = field(default_factory=list)
    # Since when everything should be well again.
    mended: float = math.inf
    # Script, time it had from then on, and when: no older code may answer from then on.
    deployed: list[tuple[str, int, float]] = field(default_factory=list)
    # Measured by the case itself instead of from the answers, in seconds.
    recovery: float | None = None

    def mark(self) -> None:
        """Something is done now."""
        self.events.append(time.monotonic())

    def shoot(self, kind: str, count: int, patience: float = PATIENCE) -> Load:
        """Sends `count` single requests at once; the caller ends them."""
        before = len(self.httpd.started())
        name = f"shot{len(self.events)}-{before}-"
        shot = Load(self.httpd.port, name, [[Clients(kind, count, requests=1)]])
        mine = f"{name}0-{kind}"
        self.wait(
            f"{count} requests '{kind}' did not all begin",
            lambda: sum(n.startswith(mine) for n in self.httpd.started()) >= count,
            patience,
        )
        return shot

    def wait(self, fault: str, what: Callable[[], object], seconds: float = PATIENCE) -> bool:
        """Waits for what should happen; `fault` is noted if it does not."""
        if took(what, seconds) is None:
            self.faults.append(fault)
            return False
        return True

    def wait_for_others(self, old: list[int]) -> bool:
        """Waits until as many processes as wanted serve that are none of `old`."""
        wanted = self.httpd.settings.processes

        def are_there() -> bool:
            return len(set(self.httpd.daemons()) - set(old)) >= wanted

        return self.wait("the processes were not replaced", are_there)

    def probe(self, kind: str) -> Record:
        """One request of its own."""
        name = f"probe{time.monotonic_ns()}"
        shot = Load(self.httpd.port, name, [[Clients(kind, 1, requests=1)]])
        return shot.finish().records[0]


Event = Callable[[Scene], None]


@dataclass(frozen=True)
class Case:
    """One row of the table."""

    name: str
    event: Event
    options: str = ""
    allowed: Allowed = Allowed.NONE
    load: list[list[Clients]] = field(default_factory=lambda: STEADY)
    # How late an answer may be; `None` if the case has no bound.
    limit: float | None = LATE
    # How long nobody may be served; `None` if the case has no bound.
    most_recovery: float | None = None
    service: bool = False
    # Whether the load has to meet another process than before.
    replaces: bool = True
    # Numbers of processes it is tried with.
    processes: tuple[int, ...] = (1, 2)
    # Why it says nothing about another module.
    only_ours: str = ""

    def settings(self, processes: int) -> Settings:
        """The configuration for it."""
        return Settings(processes, self.options, self.service)


def ten_times(what: Event, spacing: float = SPACING) -> Event:
    """`what` ten times, some time apart."""

    def event(scene: Scene) -> None:
        for _ in range(10):
            scene.mark()
            what(scene)
            time.sleep(spacing)

    return event


def graceful(scene: Scene) -> None:
    """A graceful restart."""
    scene.httpd.reload(signal.SIGUSR1)


def restart(scene: Scene) -> None:
    """A hard restart, and the wait until somebody is served again."""
    scene.httpd.reload(signal.SIGHUP)
    scene.wait("no answer after a restart", lambda: scene.probe("fast").is_good)


def graceful_stop(scene: Scene) -> None:
    """A graceful stop: nothing may be lost, nothing may be left."""
    scene.mark()
    gone_after(scene, signal.SIGWINCH, PATIENCE)


def stop(scene: Scene) -> None:
    """A stop: over within the time processes have to shut down, and a second."""
    scene.mark()
    gone_after(scene, signal.SIGTERM, 6.0)


def gone_after(scene: Scene, number: int, limit: float) -> None:
    """Sends httpd a signal to leave, and looks for what it leaves."""
    httpd = scene.httpd
    began = time.monotonic()
    httpd.signal(number)
    # So that nobody comes to the closed door for long.
    time.sleep(0.2)
    scene.seen.append(scene.load.stop())
    scene.load = None

    def is_gone() -> bool:
        return httpd.process.poll() is not None and not machine.family_of(httpd.leader)

    if took(is_gone, PATIENCE + 15) is None:
        scene.faults.append("something never went")
    scene.recovery = time.monotonic() - began
    if scene.recovery > limit:
        scene.faults.append(f"gone only after {scene.recovery:.1f} s")
    scene.notes.append("recovery: until everything was gone")
    left = httpd.leftovers()
    if left:
        scene.faults.append(f"left behind: {', '.join(left)}")


def touches(is_immediate: bool) -> Event:
    """Ten touches of the scripts by turns."""

    def event(scene: Scene) -> None:
        for number in range(10):
            script, kind = (("app.wsgi", "fast"), ("heavy.wsgi", "heavy"))[number % 2]
            version = scene.httpd.touch(script)
            scene.mark()
            if is_immediate:
                scene.deployed.append((script, version, time.monotonic()))
            scene.wait("the new code was not used", lambda: scene.probe(kind).version >= version)
            time.sleep(SPACING)

    return event


def signal_each(number: int, rounds: int, waits_for_end: bool = True) -> Event:
    """A signal to each daemon process, one after the other, in several rounds."""

    def event(scene: Scene) -> None:
        for _ in range(rounds):
            for pid in scene.httpd.daemons():
                scene.mark()
                kill(pid, number)
                if waits_for_end:
                    scene.wait(
                        "a process did not leave",
                        lambda pid=pid: pid not in scene.httpd.daemons(),
                    )
                wait_for_full_group(scene)
                time.sleep(SPACING)

    return event


def wait_for_full_group(scene: Scene) -> None:
    """Waits until there are as many processes as wanted."""
    wanted = scene.httpd.settings.processes
    scene.wait("a process is missing", lambda: len(scene.httpd.daemons()) >= wanted)


def last_for(seconds: float, at_least: int) -> Event:
    """Load alone does it: so many processes at least have to be used up by it."""

    def event(scene: Scene) -> None:
        scene.mark()
        seen = set(scene.httpd.daemons())
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            time.sleep(0.1)
            seen |= set(scene.httpd.daemons())
        scene.mark()
        used = len(seen)
        scene.notes.append(f"{used} processes")
        if used < scene.httpd.settings.processes + at_least:
            scene.faults.append(f"only {used} processes in {seconds:.0f} s")

    return event


def idle(scene: Scene) -> None:
    """Nobody asks for a while; then everybody does."""
    scene.seen.append(scene.load.stop())
    old = scene.httpd.daemons()
    scene.wait_for_others(old)
    scene.wait("idle processes did not leave", lambda: not set(old) & set(scene.httpd.daemons()))
    # Long enough for an import, so that what follows meets a process at rest.
    time.sleep(2 * IMPORT)
    scene.mark()
    scene.load = Load(scene.httpd.port, "again", STEADY)


def request_timeout(scene: Scene) -> None:
    """Requests get stuck until there is no thread left."""
    count = FEW_THREADS * scene.httpd.settings.processes
    old = scene.httpd.daemons()
    shot = scene.shoot("stuck", count, 2.0)
    scene.wait_for_others(old)
    scene.wait("stuck processes did not leave", lambda: not set(old) & set(scene.httpd.daemons()))
    end_shot(scene, shot)


def interrupt(scene: Scene) -> None:
    """The same, where stuck requests are to be interrupted and the process to stay."""
    count = FEW_THREADS * scene.httpd.settings.processes
    old = scene.httpd.daemons()
    shot = scene.shoot("stuck", count, 2.0)
    if end_shot(scene, shot).get("status 504") != count:
        scene.faults.append("not every stuck request was interrupted")
    if old != scene.httpd.daemons():
        scene.notes.append("a process was replaced")


def end_shot(scene: Scene, shot: Load) -> dict[str, int]:
    """What became of requests that were to fail; they are what happened."""
    outcomes: dict[str, int] = {}
    records = shot.finish().records
    scene.events.append(min(record.began for record in records))
    scene.events.append(max(record.ended for record in records))
    for record in records:
        outcomes[record.outcome] = outcomes.get(record.outcome, 0) + 1
    told = ", ".join(f"{count}x {outcome}" for outcome, count in outcomes.items())
    scene.notes.append(f"the stuck ones: {told}")
    return outcomes


def deadlock(scene: Scene) -> None:
    """A request waits with the interpreter's lock held."""
    old = scene.httpd.daemons()
    shot = scene.shoot("held", 1)

    def is_replaced() -> bool:
        return not set(old) <= set(scene.httpd.daemons())

    scene.wait("the process was not replaced", is_replaced)
    wait_for_full_group(scene)
    end_shot(scene, shot)


def deaths(how: str) -> Event:
    """The application ends its process, five times."""

    def event(scene: Scene) -> None:
        for _ in range(5):
            scene.mark()
            scene.shoot(how, 1).finish()
            wait_for_full_group(scene)
            time.sleep(SPACING)

    return event


def kill_supervisor(scene: Scene) -> None:
    """The supervisor dies, three times."""
    for _ in range(3):
        old = scene.httpd.titled(SUPERVISOR)
        scene.mark()
        for pid in old:
            kill(pid)
        scene.wait(
            "no supervisor came back", lambda: set(scene.httpd.titled(SUPERVISOR)) - set(old)
        )
        time.sleep(2 * SPACING)


def kill_children(scene: Scene) -> None:
    """Child processes of httpd die while they hold requests; no thread may stay taken."""
    for _ in range(3):
        old = scene.httpd.children()
        scene.mark()
        kill(old[0])
        scene.wait("no child came back", lambda: set(scene.httpd.children()) - set(old))
        time.sleep(2 * SPACING)
    time.sleep(SETTLE)
    scene.seen.append(scene.load.stop())
    scene.load = None
    count = THREADS * scene.httpd.settings.processes
    answers = scene.shoot("second", count).finish().records
    slowest = max(record.beyond for record in answers)
    scene.notes.append(f"{count} requests at once afterwards: {slowest * 1e3:.0f} ms late")
    if slowest > 0.8 * KINDS["second"].own or not all(record.is_good for record in answers):
        scene.faults.append("threads are missing")


def deploy_broken(file: str, take_notice: Event) -> Event:
    """A version that does not import is deployed, then mended."""

    def event(scene: Scene) -> None:
        httpd = scene.httpd
        scene.mark()
        httpd.write_script(file, broken=True)
        take_notice(scene)
        time.sleep(2 * SETTLE)
        text = httpd.text()
        lines = text.count("ImportError: a version that is broken")
        tracebacks = text.count("Traceback (most recent call last)")
        scene.notes.append(f"tracebacks in the log: {tracebacks}, lines of the error: {lines}")
        # Each process that met it may say so.
        if not 1 <= tracebacks <= httpd.settings.processes:
            scene.faults.append(f"the traceback is in the log {tracebacks} times")
        version = httpd.write_script(file)
        scene.mark()
        take_notice(scene)
        scene.wait("the mended code was not used", lambda: scene.probe("fast").version == version)
        scene.mended = time.monotonic()

    return event


def nothing(_scene: Scene) -> None:
    """The change of the file is notice enough."""


def memory_limit(scene: Scene) -> None:
    """A request takes all the memory its process may have, and keeps it."""
    old = scene.httpd.daemons()
    scene.mark()
    scene.shoot("hog", 1).finish()
    scene.mended = time.monotonic()
    scene.wait("the process was not replaced", lambda: not set(old) <= set(scene.httpd.daemons()))
    wait_for_full_group(scene)


def service(scene: Scene) -> None:
    """A service ends in several ways; the longest time it gave no sign of life."""
    for end in (kill, lambda pid: kill(pid, signal.SIGTERM), lambda _: graceful(scene)):
        old = scene.httpd.titled(SERVICE)
        scene.mark()
        end(old[0])
        scene.wait("no service came back", lambda: set(scene.httpd.titled(SERVICE)) - set(old))
        time.sleep(2 * SPACING)
    lines = (scene.httpd.root / "site" / "run" / "beats").read_text().splitlines()
    times = sorted(float(line.split()[1]) for line in lines if len(line.split()) == 2)
    if len(times) < 2:
        scene.faults.append("the service never ran")
        return
    scene.recovery = max(b - a for a, b in zip(times, times[1:]))
    scene.notes.append("recovery: of the service")


def kill_parent(scene: Scene) -> None:
    """httpd's parent dies: what is ours has to be gone within a second."""
    httpd = scene.httpd
    ours = [*httpd.daemons(), *httpd.titled(SUPERVISOR)]
    scene.mark()
    kill(httpd.leader)
    httpd.process.wait(PATIENCE)
    scene.recovery = took(lambda: not set(ours) & set(machine.family_of(httpd.leader)), 10)
    scene.notes.append("recovery: until every daemon process was gone")
    if scene.recovery is None or scene.recovery > 1.0:
        scene.faults.append("daemon processes outlived httpd")
    # httpd's own children are its own matter.
    for pid in machine.family_of(httpd.leader):
        kill(pid)
    scene.seen.append(scene.load.stop())
    scene.load = None


# How long it takes until a request counts as late, with so many threads: the rule of the
# module we replace.
REQUEST_TIMEOUT = 2
STUCK_FOR = REQUEST_TIMEOUT * (1 + math.log(FEW_THREADS))
TIMEOUT_OPTIONS = f"threads={FEW_THREADS} request-timeout={REQUEST_TIMEOUT}"

CASES = [
    Case("ten graceful restarts", ten_times(graceful)),
    Case(
        "ten hard restarts",
        ten_times(restart, 2 * SPACING),
        allowed=Allowed.CUT,
        limit=None,
        replaces=False,
    ),
    Case(
        "graceful stop", graceful_stop, allowed=Allowed.STOPPED, limit=LATE, replaces=False
    ),
    Case(
        "stop", stop, "shutdown-timeout=5", Allowed.STOPPED, limit=None, replaces=False
    ),
    Case("ten touches", touches(True), limit=IMPORT + LATE),
    Case("ten touches, reload=rolling", touches(False), "reload=rolling"),
    Case("SIGUSR1 to each process", signal_each(signal.SIGUSR1, 3)),
    Case(
        "SIGUSR1 with eviction-timeout=10",
        signal_each(signal.SIGUSR1, 2),
        "eviction-timeout=10",
    ),
    Case("maximum-requests=200", last_for(15, 3), "maximum-requests=200"),
    Case("restart-interval=3", last_for(15, 3), "restart-interval=3"),
    Case(
        "max-rss=80 MB, a leak",
        last_for(15, 2),
        "max-rss=80000000",
        load=[*STEADY, [Clients("leak", 1, pause=0.05)]],
    ),
    Case("inactivity-timeout=2", idle, "inactivity-timeout=2"),
    Case(
        "cpu-time-limit=3",
        last_for(20, 2),
        "cpu-time-limit=3",
        load=[*STEADY, [Clients("burn", 1, pause=0.03)]],
    ),
    Case(
        "request-timeout=2, 5 of 5 threads stuck",
        request_timeout,
        TIMEOUT_OPTIONS,
        load=SMALL,
        limit=STUCK_FOR + 1 + LATE,
        most_recovery=STUCK_FOR + 1,
    ),
    Case(
        "interrupt-timeout=2, 5 of 5 threads stuck",
        interrupt,
        f"{TIMEOUT_OPTIONS} interrupt-timeout=2",
        load=SMALL,
        limit=STUCK_FOR + 1 + LATE,
        most_recovery=STUCK_FOR + 1,
        replaces=False,
    ),
    Case(
        "deadlock-timeout=2, lock held in C",
        deadlock,
        "deadlock-timeout=2",
        Allowed.STARTED,
        limit=None,
    ),
    Case(
        "kill -9 of daemon processes",
        signal_each(signal.SIGKILL, 3),
        allowed=Allowed.STARTED,
        limit=None,
    ),
    Case(
        "kill -SEGV of daemon processes",
        signal_each(signal.SIGSEGV, 3),
        allowed=Allowed.STARTED,
        limit=None,
    ),
    Case("os._exit, five times", deaths("exit"), allowed=Allowed.STARTED, limit=None),
    Case("os.abort, five times", deaths("abort"), allowed=Allowed.STARTED, limit=None),
    Case(
        "kill -9 of the supervisor, three times",
        kill_supervisor,
        only_ours="mod_wsgi has none",
    ),
    Case(
        "kill -9 of httpd's children",
        kill_children,
        allowed=Allowed.CUT,
        limit=None,
        replaces=False,
    ),
    Case(
        "broken module, graceful restart",
        deploy_broken("feature.py", graceful),
    ),
    Case(
        "broken script, graceful restart",
        deploy_broken("app.wsgi", graceful),
        limit=IMPORT + LATE,
    ),
    Case(
        "broken script, graceful restart, reload=rolling",
        deploy_broken("app.wsgi", graceful),
        "reload=rolling",
    ),
    Case(
        "broken script",
        deploy_broken("app.wsgi", nothing),
        limit=IMPORT + LATE,
    ),
    Case(
        "broken script, reload=rolling",
        deploy_broken("app.wsgi", nothing),
        "reload=rolling",
    ),
    Case(
        "memory-limit=400 MB, all of it taken",
        memory_limit,
        "memory-limit=400000000",
        Allowed.UNTIL_MENDED,
        limit=IMPORT + LATE,
    ),
    Case("a service (threads=0) ends", service, service=True, replaces=True),
    Case(
        "kill -9 of httpd's parent",
        kill_parent,
        allowed=Allowed.ALL,
        limit=None,
        replaces=False,
    ),
]


