"""The queue: what runs, what waits and why, with a made-up clock."""

from __future__ import annotations

import heapq
import random
from collections import defaultdict
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tuner.serve.queue import Priority, QueueItem, UserShare, ordered, plan

LOW, NORMAL, HIGH = Priority.LOW, Priority.NORMAL, Priority.HIGH


def running(name: str, owner: str = "bob", holds: int = 1, **more: object) -> QueueItem:
    return QueueItem(name, owner, holds=holds, wants=holds, least=holds, **more)  # type: ignore[arg-type]


def test_search_starts_on_free_devices() -> None:
    made = plan([QueueItem("a", "bob", wants=3, least=1)], {}, 2, 0)
    assert made.starts == {"a": 2}
    assert not made.pauses
    assert not made.waits


def test_search_waits_for_all_that_it_needs_and_nothing_overtakes_it() -> None:
    jobs = [
        running("a", holds=1, seconds_left=100.0),
        QueueItem("b", "eve", order=1, wants=2, least=2, seconds_left=50.0),
        QueueItem("c", "eve", order=2, seconds_left=10.0),
    ]
    made = plan(jobs, {}, 2, 1000)
    assert not made.starts
    b, c = made.waits["b"], made.waits["c"]
    assert (b.position, b.begins_at) == (1, 1100)
    assert b.reason == "it needs 2 devices, 1 of them free; a runs"
    assert (c.position, c.begins_at, c.reason) == (2, 1150, "its turn comes after b")


def test_nobody_can_tell_when_a_search_of_unknown_length_ends() -> None:
    made = plan([running("a"), QueueItem("b", "eve")], {}, 1, 0)
    assert made.waits["b"].begins_at is None


def test_users_take_turns_within_a_class() -> None:
    jobs = [QueueItem(f"{owner}{i}", owner, order=i) for owner in "xy" for i in range(3)]
    assert [job.name for job in ordered(jobs, {})] == ["x0", "y0", "x1", "y1", "x2", "y2"]
    heavy = {"x": UserShare(used=1e9), "y": UserShare(weight=1.0)}
    assert [job.owner for job in ordered(jobs, heavy)] == list("yyyxxx")
    jobs.append(QueueItem("urgent", "x", Priority.URGENT, order=9))
    assert ordered(jobs, heavy)[0].name == "urgent"


@pytest.mark.parametrize(
    ("share", "reason"),
    [
        (UserShare(most_searches=1), "bob may run 1 search at one time"),
        (UserShare(most_devices=1), "bob may use 1 device at one time"),
        (UserShare(tokens_left=0), "bob has used up the tokens of today"),
    ],
)
def test_limit_of_a_user_keeps_nobody_else(share: UserShare, reason: str) -> None:
    jobs = [running("a"), QueueItem("b", "bob", HIGH, order=1), QueueItem("c", "eve", order=2)]
    made = plan(jobs, {"bob": share}, 4, 0)
    assert made.starts == {"c": 1}
    assert made.waits["b"].reason == reason


def test_search_that_is_too_large_is_told_so_and_keeps_nobody() -> None:
    made = plan(
        [QueueItem("a", "bob", HIGH, wants=8, least=8), QueueItem("b", "bob", order=1)], {}, 2, 0
    )
    assert made.starts == {"b": 1}
    assert made.waits["a"].reason == "it needs 8 devices, and there are 2"


def test_higher_class_pauses_the_newest_of_the_lowest_class() -> None:
    jobs = [
        running("old", priority=LOW, since=1), running("new", priority=LOW, since=2),
        running("normal", priority=NORMAL, since=3), QueueItem("c", "eve", HIGH),
    ]  # fmt: skip
    made = plan(jobs, {}, 3, 10)
    assert made.pauses == ["new"]
    assert made.waits["c"].reason == "new is paused for it"
    left = [replace(job, is_leaving=job.name == "new") for job in jobs]
    again = plan(left, {}, 3, 10)
    assert not again.pauses, "one is enough"
    assert again.waits["c"].reason == "new will soon make room"


def test_nothing_is_paused_without_need_or_use() -> None:
    wide = QueueItem("c", "eve", HIGH, wants=2, least=2)
    jobs = [running("a", priority=LOW, since=2), running("b", priority=LOW, holds=2, since=1), wide]
    assert plan(jobs, {}, 3, 0).pauses == ["b"], "a alone would not do, and is not needed"
    equal = [running("a", priority=HIGH), wide]
    assert not plan(equal, {}, 2, 0).pauses
    useless = [running("a", priority=LOW), running("b", priority=HIGH), wide]
    assert not plan(useless, {}, 2, 0).pauses, "it would make no room"
    by_command = [QueueItem("a", "", LOW, holds=2), wide]
    assert not plan(by_command, {}, 2, 0).pauses, "it is somebody's at a terminal"


def elastic(name: str, holds: int, **more: object) -> QueueItem:
    return QueueItem(name, "bob", wants=4, least=1, holds=holds, **more)  # type: ignore[arg-type]


def test_elastic_search_gives_back_what_others_wait_for() -> None:
    """The newest of the lowest class first, for all that can begin, but not what it needs."""
    jobs = [
        elastic("old", 3, since=1), elastic("new", 2, since=2), elastic("high", 3, priority=HIGH),
        QueueItem("a", "eve", order=1), QueueItem("b", "eve", order=2, wants=2, least=2),
    ]  # fmt: skip
    made = plan(jobs, {}, 8, 10)
    assert made.resizes == {"new": 1, "old": 1}
    assert not made.pauses
    assert made.waits["a"].reason == "old and new will soon make room"
    assert (made.waits["a"].begins_at, made.waits["b"].begins_at) == (10, 10)
    asked = [
        replace(job, is_leaving=True, keeps=made.resizes[job.name])
        if job.name in made.resizes else job for job in jobs
    ]  # fmt: skip
    again = plan(asked, {}, 8, 11)
    assert not again.resizes, "that is enough"
    assert not again.pauses
    wide = [*jobs, QueueItem("c", "eve", order=0, wants=5, least=5)]
    assert not plan(wide, {}, 8, 10).resizes, "it would make no room for whose turn it is"
    urgent = plan([*jobs, QueueItem("c", "eve", Priority.URGENT, wants=5, least=5)], {}, 8, 10)
    assert urgent.resizes == {"new": 1, "old": 1, "high": 1}
    more = plan([*jobs, QueueItem("c", "eve", Priority.URGENT, wants=7, least=7)], {}, 8, 10)
    assert (more.resizes, more.pauses) == ({}, ["new", "old", "high"])


def test_elastic_search_gets_what_nobody_waits_for() -> None:
    jobs = [
        elastic("new", 1, since=940, seconds_left=900), elastic("short", 1, seconds_left=200),
        elastic("a", 2, since=1, seconds_left=900), elastic("unknown", 1),
        elastic("just", 1, since=941, seconds_left=900), elastic("leaves", 1, is_leaving=True),
    ]  # fmt: skip
    assert plan(jobs, {}, 10, 1000).resizes == {"a": 4, "new": 2}
    assert plan(jobs, {"bob": UserShare(most_devices=8)}, 10, 1000).resizes == {"a": 3}
    waits = [*jobs, QueueItem("wide", "eve", wants=9, least=9)]
    assert not plan(waits, {}, 10, 1000).resizes
    first = plan([elastic("x", 0), QueueItem("y", "eve", order=1), elastic("a", 1)], {}, 4, 1000)
    assert first.starts == {"x": 2, "y": 1}, "who starts gets what is left by others that start"


JOBS = st.lists(
    st.builds(
        QueueItem,
        name=st.uuids().map(str),
        owner=st.sampled_from(["", "x", "y", "z"]),
        priority=st.sampled_from(Priority),
        order=st.integers(0, 99).map(float),
        wants=st.integers(2, 4),
        least=st.integers(1, 2),
        holds=st.sampled_from([0, 0, 2, 3]),
        since=st.integers(0, 9).map(float),
        seconds_left=st.none() | st.integers(0, 999).map(float),
        is_leaving=st.booleans(),
    ),
    max_size=9,
    unique_by=lambda job: job.name,
)


@settings(max_examples=200)
@given(JOBS, st.integers(0, 3))
def test_never_two_searches_on_one_device(jobs: list[QueueItem], more: int) -> None:
    devices = sum(job.holds for job in jobs) + more
    made = plan(jobs, {"x": UserShare(most_devices=3)}, devices, 900)
    by_name = {job.name: job for job in jobs}
    waiting = {job.name for job in jobs if not job.holds}
    grown = {n: count - by_name[n].holds for n, count in made.resizes.items()}
    assert sum(made.starts.values()) + sum(each for each in grown.values() if each > 0) <= more
    assert not (made.waits and any(each > 0 for each in grown.values())) or all(
        "at one time" in wait.reason or "there are" in wait.reason for wait in made.waits.values()
    ), "nobody gets more while others wait for devices"
    for name, count in made.resizes.items():
        job = by_name[name]
        assert job.owner
        assert not job.is_leaving
        assert job.least <= count <= max(job.wants, job.holds)
    assert made.starts.keys() | made.waits.keys() == waiting
    assert not made.starts.keys() & made.waits.keys()
    assert sorted(wait.position for wait in made.waits.values()) == [*range(1, len(made.waits) + 1)]
    for name, count in made.starts.items():
        assert by_name[name].least <= count <= by_name[name].wants
    for name in made.pauses:
        victim = by_name[name]
        assert victim.holds
        assert victim.owner
        assert not victim.is_leaving
        head = next(by_name[n] for n in made.waits if made.waits[n].position == 1)
        assert victim.priority < head.priority


def test_users_get_their_shares_over_a_month() -> None:
    """Three users who always have searches waiting, of any length and width."""
    asked = {"x": 0.5, "y": 0.3, "z": 0.2}
    dice, devices, now, number = random.Random(0), 4, 0.0, 0
    shares = {owner: UserShare(weight=weight) for owner, weight in asked.items()}
    jobs: dict[str, QueueItem] = {}
    ends: list[tuple[float, str]] = []
    used: dict[str, float] = defaultdict(float)
    lengths: dict[str, float] = {}
    while now < 30 * 86_400:
        for owner in asked:
            while sum(job.owner == owner and not job.holds for job in jobs.values()) < 3:
                number += 1
                name, count = f"{owner}{number}", dice.choice([1, 1, 2, 4])
                jobs[name] = QueueItem(name, owner, order=number, wants=count, least=count)
                lengths[name] = dice.uniform(0.5, 8) * 3600  # of which the queue knows nothing
        made = plan(list(jobs.values()), shares, devices, now)
        for name, count in made.starts.items():
            jobs[name] = replace(jobs[name], holds=count, since=now)
            heapq.heappush(ends, (now + lengths[name], name))
        now, name = heapq.heappop(ends)
        done = jobs.pop(name)
        spent = done.holds * (now - done.since)
        used[done.owner] += spent
        shares[done.owner] = shares[done.owner].charged(spent, now)
    total = sum(used.values())
    assert total > 0.75 * devices * now, "they wait only for what asks for all of them"
    for owner, share in asked.items():
        assert used[owner] / total == pytest.approx(share, rel=0.05)


def test_clock_that_jumps_changes_no_order() -> None:
    before = {"x": UserShare(used=100.0, at=50.0), "y": UserShare(used=101.0, at=50.0)}
    for now in (0.0, 50.0, 90_000.0):
        after = {owner: share.charged(0.0, now) for owner, share in before.items()}
        assert after["x"].used < after["y"].used <= 101.0
    assert UserShare(used=8.0, at=0.0).charged(1.0, 20.0, half_life=10.0).used == pytest.approx(3.0)
