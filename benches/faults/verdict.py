"""What the clients saw, made into a row: figures, and whether they are as they should be."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass, field

from cases import FAULTY_KINDS, SETTLE, STEADY_KINDS, Allowed, Case, Scene, graceful_stop
from clients import Record


@dataclass(frozen=True)
class Row:
    """One case with one number of processes; times in milliseconds."""

    case: str
    processes: int
    # "held", "failed", or why there are no figures.
    verdict: str
    requests: int = 0
    failed: int = 0
    # Of these, those the case could not avoid.
    allowed: int = 0
    retried: int = 0
    # Beyond their own time, while it happened; before; and httpd's own files meanwhile.
    slowest: float = 0.0
    slowest_before: float = 0.0
    slowest_static: float = 0.0
    recovery: float = 0.0
    # How long the clients were kept from working by the machine.
    stumble: float = 0.0
    # How failures looked, and when they happened.
    outcomes: dict[str, int] = field(default_factory=dict)
    # The latest answers: what, how late, when after the first event.
    latest: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)

    def as_dict(self) -> dict:
        """For keeping."""
        return asdict(self)


@dataclass(frozen=True)
class Phases:
    """The requests of a case, by when they happened."""

    before: list[Record]
    during: list[Record]
    after: list[Record]

    @staticmethod
    def of(records: list[Record], events: list[float]) -> Phases:
        """Sorts them; whatever an event could touch is `during`."""
        first, last = events[0], events[-1] + SETTLE
        before = [record for record in records if record.ended < first]
        after = [record for record in records if record.began > last]
        during = [r for r in records if first <= r.ended and r.began <= last]
        return Phases(before, during, after)

    def name_of(self, record: Record, events: list[float]) -> str:
        """The phase of one of them."""
        if record.ended < events[0]:
            return "before"
        return "after" if record.began > events[-1] + SETTLE else "during"


def judge(case: Case, scene: Scene) -> Row:
    """The row of a case that has run."""
    everything = [record for seen in scene.seen for record in seen.records]
    records = [record for record in everything if record.kind not in FAULTY_KINDS]
    started = scene.httpd.started()
    failed = {id(r): outcome(r, started) for r in records if outcome(r, started) != "ok"}
    losses = [record for record in records if id(record) in failed]
    unavoidable = [r for r in losses if is_allowed(case, scene, r, failed[id(r)], started)]
    phases = Phases.of(records, scene.events)
    outcomes = Counter(
        f"{phases.name_of(r, scene.events)} {r.kind}: {failed[id(r)]}" for r in losses
    )
    recovery = scene.recovery if scene.recovery is not None else longest_silence(records, scene)
    slowest = most_beyond([record for record in phases.during if record.kind != "static"])
    faults = [*scene.faults, *complaints(case, scene, phases)]
    if len(losses) > len(unavoidable):
        faults.append(f"{len(losses) - len(unavoidable)} requests failed")
    if case.limit is not None and slowest > case.limit:
        faults.append(f"an answer {slowest * 1e3:.0f} ms late")
    if case.most_recovery is not None and recovery > case.most_recovery:
        faults.append(f"nobody served for {recovery:.1f} s")
    return Row(
        case.name,
        scene.httpd.settings.processes,
        "failed" if faults else "held",
        len(records),
        len(losses),
        len(unavoidable),
        sum(len(record.names) > 1 for record in records),
        slowest * 1e3,
        most_beyond([record for record in phases.before if record.kind != "static"]) * 1e3,
        most_beyond([record for record in phases.during if record.kind == "static"]) * 1e3,
        recovery * 1e3,
        max(seen.stumble for seen in scene.seen) * 1e3,
        dict(outcomes),
        latest(records, scene),
        scene.notes,
        faults,
    )


def outcome(record: Record, started: set[str]) -> str:
    """What became of a request; what a repetition hid included."""
    if len(record.names) > 1 and record.names[0] in started:
        return "lost"
    return record.outcome


def is_allowed(case: Case, scene: Scene, record: Record, how: str, started: set[str]) -> bool:
    """Whether this failure is one that the case cannot avoid."""
    if how == "corrupt" or record.ended < scene.events[0]:
        return False
    has_started = any(name in started for name in record.names)
    is_cut = how in ("closed", "short", "refused", "lost")
    match case.allowed:
        case Allowed.STARTED:
            return has_started
        case Allowed.CUT:
            return is_cut
        case Allowed.ALL:
            return True
        case Allowed.STOPPED:
            # A graceful stop lets finish what has started.
            return is_cut and (case.event is not graceful_stop or not has_started)
        case Allowed.UNTIL_MENDED:
            return record.began < scene.mended
        case _:
            return False


def complaints(case: Case, scene: Scene, phases: Phases) -> list[str]:
    """What is wrong beyond requests that failed or were late."""
    found = []
    old = {record.pid for record in phases.before}
    if case.replaces and not {r.pid for r in phases.during + phases.after} - old - {0}:
        found.append("no other process answered")
    older = stale(scene, phases.during + phases.after)
    if older:
        found.append(f"{older} answers by older code")
    return found


def stale(scene: Scene, records: list[Record]) -> int:
    """How many answers were given by code that was older than the script."""
    count = 0
    for script, version, since in scene.deployed:
        for record in records:
            is_of_script = (record.kind == "heavy") == (script == "heavy.wsgi")
            is_later = record.began > since and record.version
            count += bool(is_of_script and is_later and record.version < version)
    return count


def latest(records: list[Record], scene: Scene) -> list[str]:
    """The latest answers in words, of those before the first event and of the others."""
    first = scene.events[0]
    worst = sorted(records, key=lambda record: record.beyond, reverse=True)
    before = [record for record in worst if record.ended < first]
    others = [record for record in worst if record.ended >= first]
    return [
        f"{r.kind} {r.beyond * 1e3:.0f} ms late, begun {r.began - first:+.2f} s, {r.outcome}"
        for r in before[:3] + others[:5]
    ]


def most_beyond(records: list[Record]) -> float:
    """How late the latest answer was."""
    return max((record.beyond for record in records), default=0.0)


def longest_silence(records: list[Record], scene: Scene) -> float:
    """The longest time in which no quick request was answered."""
    first = scene.events[0]
    quick = [record for record in records if record.kind in STEADY_KINDS]
    ends = [record.ended for record in quick if record.is_good and record.ended > first]
    # One that was never answered counts for as long as its client waited.
    last = max((record.ended for record in quick), default=first)
    times = sorted([first, *ends, last])
    return max(b - a for a, b in zip(times, times[1:]))
