"""Which searches run: pure decisions over what waits and what runs, at a time that is given.

Classes come first, then shares: within a class the user is next who has used the fewest
device-seconds of late, relative to the share. Nothing overtakes a search that waits for devices, so
each gets its turn. A search of a higher class pauses the newest searches of the lowest class, if
that makes room: a pause is exact, so that it costs the searches time only.

A search that said that fewer devices are enough is elastic: it gives back those beyond, newest
first, when a search of its class or a higher one waits, and gets more when nobody does.
"""

from __future__ import annotations

import heapq
import math
from collections import defaultdict
from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import IntEnum

from tuner.texts.formatting import counted, listed

HALF_LIFE_SECONDS = 7 * 86_400.0
_ASSUMED_SECONDS = 3600.0  # duration of a search of which nothing is known
# What a search must have had its devices for, and have left, to get more: a driver that begins
# again with other workers costs it the time of some reports.
_SETTLED_SECONDS, _WORTH_SECONDS = 60.0, 300.0


class Priority(IntEnum):
    """Class of a search; a higher one runs first, and pauses lower ones."""

    LOW = 0
    NORMAL = 1
    HIGH = 2
    URGENT = 3


@dataclass(frozen=True)
class QueueItem:
    """A search that waits or runs.

    Attributes:
        name: name of the search.
        owner: its user; empty if a command runs it without the queue.
        priority: its class.
        order: place among the searches of its class and user; the smallest is first.
        wants: number of devices that it asks for.
        least: number of devices that are enough for it.
        holds: number of devices that it has; 0 while it waits.
        since: time at which it got them.
        seconds_left: estimate of its remaining time on the devices that it wants; None if unknown.
        is_leaving: True if it was asked to pause or stop.
        keeps: number of devices on which it begins again at once when it has left.
    """

    name: str
    owner: str
    priority: Priority = Priority.NORMAL
    order: float = 0.0
    wants: int = 1
    least: int = 1
    holds: int = 0
    since: float = 0.0
    seconds_left: float | None = None
    is_leaving: bool = False
    keeps: int = 0


@dataclass(frozen=True)
class UserShare:
    """What a user may use, and has used.

    Attributes:
        weight: share relative to those of the others.
        used: device-seconds of late, of which each half-life halves those before.
        at: time up to which they are counted.
        most_searches: most searches that may run at one time; None for no limit.
        most_devices: most devices that they may have together; None for no limit.
        tokens_left: training tokens that are left of this day; None for no limit.
    """

    weight: float = 1.0
    used: float = 0.0
    at: float = 0.0
    most_searches: int | None = None
    most_devices: int | None = None
    tokens_left: int | None = None

    def charged(
        self, device_seconds: float, now: float, half_life: float = HALF_LIFE_SECONDS
    ) -> UserShare:
        """Return the share after more use.

        A clock that jumps changes all shares by one factor, so it changes no order.
        """
        factor = 0.5 ** (max(0.0, now - self.at) / half_life)
        return replace(self, used=self.used * factor + device_seconds, at=now)


@dataclass(frozen=True)
class Wait:
    """Why a search waits.

    Attributes:
        position: place in the order in which searches will begin, from 1.
        reason: what it waits for.
        begins_at: time at which it will probably begin; None if nobody can tell.
    """

    position: int
    reason: str
    begins_at: float | None = None


@dataclass(frozen=True)
class Plan:
    """What to do next.

    Attributes:
        starts: searches to start, name → number of devices.
        pauses: names of the searches to pause for others.
        waits: why the others wait, name → reason, in the order in which they will begin.
        resizes: searches that go on with fewer or more devices, name → number of devices.
    """

    starts: Mapping[str, int]
    pauses: Sequence[str]
    waits: Mapping[str, Wait]
    resizes: Mapping[str, int] = field(default_factory=dict)


@dataclass
class _Room:
    """Devices and limits, as the plan uses them up."""

    free: int
    searches: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    devices: dict[str, int] = field(default_factory=lambda: defaultdict(int))

    def take(self, job: QueueItem, count: int) -> None:
        self.free -= count
        self.searches[job.owner] += 1
        self.devices[job.owner] += count


def plan(
    jobs: Sequence[QueueItem], shares: Mapping[str, UserShare], devices: int, now: float
) -> Plan:
    """Decide which searches start and pause.

    Args:
        jobs: searches that wait or run.
        shares: shares of the users; a user without one has that of `UserShare()`.
        devices: number of devices.
        now: the time, in seconds.
    """
    running = [job for job in jobs if job.holds]
    room = _Room(devices)
    for job in running:
        room.take(job, job.holds)
    starts: dict[str, int] = {}
    pauses: list[str] = []
    reasons: dict[str, str] = {}
    queued: list[QueueItem] = []  # those that no limit keeps
    blocking: QueueItem | None = None
    for job in ordered(jobs, shares):
        share = shares.get(job.owner, UserShare())
        most = _most_devices(job, share, room)
        if limit := _limit(job, share, room, most, devices):
            reasons[job.name] = limit
            continue
        if blocking is None and min(room.free, most) >= job.least:
            starts[job.name] = job.least
            running.append(replace(job, holds=job.least, since=now))
            room.take(job, job.least)
            continue
        queued.append(job)
        if blocking is None:
            blocking = job
        else:
            reasons[job.name] = f"its turn comes after {blocking.name}"
    if blocking is None:
        grown = _growths(running, shares, room, now, starts)
        starts = {name: grown.pop(name, count) for name, count in starts.items()}
        resizes = grown
    else:
        resizes = _shrinks(queued, running, room.free)
        running = [_resized(job, resizes) for job in running]
        pauses = [] if resizes else _victims(blocking, running, room.free)
        reasons[blocking.name] = _missing(blocking, running, pauses, room.free)
    begins = _beginnings(queued, running, room.free, now)
    places = {job.name: number for number, job in enumerate(queued, 1)}
    waits = {
        name: Wait(places.get(name, 0), reason, begins.get(name))
        for name, reason in reasons.items()
    }
    return Plan(starts, pauses, _numbered(waits), resizes)


def ordered(jobs: Sequence[QueueItem], shares: Mapping[str, UserShare]) -> list[QueueItem]:
    """Return the searches that wait, in the order in which they will begin.

    A search counts as used up what it will probably use, so that users take turns.
    """
    used: dict[str, float] = {}
    waiting: dict[Priority, dict[str, list[QueueItem]]] = defaultdict(lambda: defaultdict(list))
    for job in jobs:
        share = shares.get(job.owner, UserShare())
        used.setdefault(job.owner, share.used / share.weight)
        if job.holds:
            used[job.owner] += job.holds * _expected(job) / share.weight
        else:
            waiting[job.priority][job.owner].append(job)
    result = []
    for priority in sorted(waiting, reverse=True):
        lines = {
            owner: sorted(line, key=lambda job: job.order, reverse=True)
            for owner, line in waiting[priority].items()
        }
        while lines:
            owner = min(lines, key=lambda each: (used[each], lines[each][-1].order))
            job = lines[owner].pop()
            if not lines[owner]:
                del lines[owner]
            used[owner] += job.wants * _expected(job) / shares.get(owner, UserShare()).weight
            result.append(job)
    return result


def _expected(job: QueueItem) -> float:
    return _ASSUMED_SECONDS if job.seconds_left is None else job.seconds_left


def _most_devices(job: QueueItem, share: UserShare, room: _Room) -> int:
    """Return the number of devices that the limit of its user leaves a search."""
    if share.most_devices is None:
        return job.wants
    return share.most_devices - room.devices[job.owner]


def _limit(job: QueueItem, share: UserShare, room: _Room, most: int, devices: int) -> str:
    """Return which limit keeps a search from its turn; empty if none does."""
    if job.least > devices:
        return f"it needs {counted(job.least, 'device')}, and there are {devices}"
    if share.tokens_left is not None and share.tokens_left <= 0:
        return f"{job.owner} has used up the tokens of today"
    if share.most_searches is not None and room.searches[job.owner] >= share.most_searches:
        return f"{job.owner} may run {counted(share.most_searches, 'search')} at one time"
    if most < job.least:
        return f"{job.owner} may use {counted(share.most_devices or 0, 'device')} at one time"
    return ""


def _victims(job: QueueItem, running: Sequence[QueueItem], free: int) -> list[str]:
    """Return the searches to pause for one of a higher class; none if that makes no room.

    The lowest class comes first, in a class the newest search, and none that is not needed.
    """
    free += _coming(running)
    lower = [
        each for each in running
        if each.owner and each.priority < job.priority and not each.is_leaving
    ]  # fmt: skip
    taken: list[QueueItem] = []
    for each in sorted(lower, key=lambda each: (each.priority, -each.since)):
        if free >= job.least:
            break
        taken.append(each)
        free += each.holds
    if free < job.least:
        return []
    for each in list(taken):
        if free - each.holds >= job.least:
            taken.remove(each)
            free -= each.holds
    return [each.name for each in taken]


def _coming(running: Sequence[QueueItem]) -> int:
    """Return the number of devices that searches will soon give back."""
    return sum(each.holds - each.keeps for each in running if each.is_leaving)


def _shrinks(
    queued: Sequence[QueueItem], running: Sequence[QueueItem], free: int
) -> dict[str, int]:
    """Return how many devices searches keep that give some back for those that wait.

    As many of those begin, in their order, as the devices are enough for that no search needs.
    """
    spare = sorted(  # of those that start, none has more than is enough
        (
            each
            for each in running
            if each.owner and each.holds > each.least and not each.is_leaving
        ),
        key=lambda each: (each.priority, -each.since),
    )
    keeps = {each.name: each.holds for each in spare}
    free += _coming(running)
    for job in queued:
        givers = [each for each in spare if each.priority <= job.priority]
        need = job.least - free
        if sum(keeps[each.name] - each.least for each in givers) < need:
            break
        free = max(0, -need)
        for each in givers:
            given = max(0, min(need, keeps[each.name] - each.least))
            keeps[each.name] -= given
            need -= given
    return {each.name: keeps[each.name] for each in spare if keeps[each.name] < each.holds}


def _growths(
    running: Sequence[QueueItem], shares: Mapping[str, UserShare], room: _Room, now: float,
    starts: Container[str],
) -> dict[str, int]:  # fmt: skip
    """Return how many devices searches have that get some which nobody waits for.

    Those that start come first, then higher classes, and in a class who has used less.
    """
    grown: dict[str, int] = {}
    able = [
        each for each in running
        if each.owner and each.holds < each.wants and not each.is_leaving and (
            each.name in starts or (now - each.since >= _SETTLED_SECONDS
            and (each.seconds_left or 0.0) >= _WORTH_SECONDS)
        )
    ]  # fmt: skip

    def place(job: QueueItem) -> tuple[bool, int, float, float]:
        share = shares.get(job.owner, UserShare())
        return job.name not in starts, -job.priority, share.used / share.weight, job.since

    for each in sorted(able, key=place):
        share = shares.get(each.owner, UserShare())
        most = each.wants - each.holds
        if share.most_devices is not None:
            most = min(most, share.most_devices - room.devices[each.owner])
        if (more := min(most, room.free)) > 0:
            grown[each.name] = each.holds + more
            room.free -= more
            room.devices[each.owner] += more
    return grown


def _resized(job: QueueItem, resizes: Mapping[str, int]) -> QueueItem:
    if job.name not in resizes:
        return job
    return replace(job, is_leaving=True, keeps=resizes[job.name])


def _missing(job: QueueItem, running: Sequence[QueueItem], pauses: Sequence[str], free: int) -> str:
    if pauses:
        return f"{listed(pauses, 'and')} {'is' if len(pauses) == 1 else 'are'} paused for it"
    leaving = [each.name for each in running if each.is_leaving and each.keeps < each.holds]
    if leaving:
        return f"{listed(leaving, 'and')} will soon make room"
    needs, verb = counted(job.least, "device"), "runs" if len(running) == 1 else "run"
    names = listed([each.name for each in running], "and")
    return f"it needs {needs}, {free} of them free; {names} {verb}"


def _beginnings(
    queued: Sequence[QueueItem], running: Sequence[QueueItem], free: int, now: float
) -> dict[str, float]:
    """Return when searches will probably begin, one after the other; none if nobody can tell."""
    ends = [(now + _left(job), job.holds - job.keeps) for job in running]
    ends += [(now + _left(replace(job, is_leaving=False)), job.keeps) for job in running]
    heapq.heapify(ends)
    begins: dict[str, float] = {}
    at = now
    for job in queued:
        while free < job.least and ends:
            end, count = heapq.heappop(ends)
            at, free = max(at, end), free + count
        if free < job.least or math.isinf(at):
            break
        begins[job.name] = at
        count = min(job.wants, free)
        free -= count
        heapq.heappush(ends, (at + _left(replace(job, holds=count)), count))
    return begins


def _left(job: QueueItem) -> float:
    """Return the remaining seconds of a search on the devices that it holds."""
    if job.is_leaving:
        return 0.0
    if job.seconds_left is None:
        return math.inf
    return job.seconds_left * max(1.0, job.wants / job.holds)


def _numbered(waits: Mapping[str, Wait]) -> dict[str, Wait]:
    """Return waits by their positions; what a limit keeps comes last."""
    ranked: Iterator[tuple[str, Wait]] = iter(
        sorted(waits.items(), key=lambda item: item[1].position or math.inf)
    )
    return {name: replace(wait, position=i) for i, (name, wait) in enumerate(ranked, 1)}
