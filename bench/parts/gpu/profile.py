"""Part `profile` of gpu.py: where the time of ticks, refills and reports goes, and calibration.

K = slots of a stack.
"""

from __future__ import annotations

import contextlib
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch

from model.corpus.dataset import TextDataset
from model.corpus.device_dataset import on_device
from model.device.memory import free_bytes, give_back, is_out_of_memory
from model.device.precision import Precision
from model.engine.calibration import Measurement as Measured
from model.engine.calibration import Setup, stack_meter, widest_stack
from model.engine.engine import Engine
from model.engine.report import Report, Status
from model.spec.architecture import Architecture
from model.spec.trial import TrialSpec
from parts import synthetic
from parts.fusion.jobs import SEQUENCES, SIZES, TINY, Size
from parts.fusion.sides import text
from parts.gpu.measurement import Measurement, Numbers, Verdicts, Where, of_kind
from parts.gpu.trials import engine_of
from parts.measuring import by_turns, spread

ENDLESS = 1_000_000_000  # updates
PROFILED = {"1M": 64, "50M": 4}  # size → K
CALIBRATED = ("1M", "10M", "50M")
MOST_GAPS, MOST_IDLE = 0.02, 0.03
LEAST_OF_BEST = 0.95
HOST_GAP = 50.0  # µs: a longer gap between two kernels is a wait for the host
# weights and two moments in float32: 4 and 400 MB
REPORTED = {  # state → architecture, K, reports, and updates between two of them
    "4 MB": (
        Architecture(vocab_size=2048, d_model=64, n_layers=2, n_heads=4, context_length=128),
        (32, 12, 64),
    ),
    "400 MB": (
        Architecture(vocab_size=8192, d_model=512, n_layers=8, n_heads=8, context_length=256),
        (4, 5, 64),
    ),
}


def measurements(where: Where) -> dict[str, Measurement]:
    """Return the measurements of this part."""
    sizes = ["tiny"] if where.quick else PROFILED
    found = {f"ticks, {name}": Measurement(partial(ticks, name), 40) for name in sizes}
    found |= {
        f"refills, {name}": Measurement(partial(refills, name), 60) for name in list(sizes)[:1]
    }
    states = ["tiny"] if where.quick else REPORTED
    found |= {f"reports, {state}": Measurement(partial(reports, state), 80) for state in states}
    names = ["tiny"] if where.quick else CALIBRATED
    return found | {f"slots, {name}": Measurement(partial(slots, name), 75) for name in names}


def _size(name: str) -> Size:
    return TINY if name == "tiny" else SIZES["cuda"][name]


def _spec(
    a: Architecture, batch: int, seed: int, updates: int = ENDLESS, reports: int = 1
) -> TrialSpec:
    rows = {"batch_size": batch, "max_learning_rate": 1e-3, "total_steps": updates}
    return synthetic.trial(a, seed, rows, (SEQUENCES, batch), reports=reports)


def _endless(size: Size, k: int, where: Where) -> Engine:
    """Return a warm engine whose K trials never report."""
    engine = engine_of(size.architecture, where, slots=k, dtype=where.dtype)
    for seed in range(k):
        engine.add_trial(str(seed), _spec(size.architecture, size.batch, seed))
    for _ in range(4):  # an eager tick, the captures, and their first replays
        _step(engine)
    return engine


def _step(engine: Engine) -> list[Report]:
    """Train one quantum; delete older checkpoints, as a search does."""
    reports = engine.step()
    for error in engine.failures.values():
        raise error
    for report in reports:
        engine.prune_checkpoints(report.trial_id, report.step)
    return reports


def _rate(engine: Engine, where: Where, seconds: float) -> float:
    """Return the tokens per second of steps."""
    tokens, began = engine.tokens, time.perf_counter()
    while time.perf_counter() - began < (0.05 if where.quick else seconds):
        _step(engine)
    return (engine.tokens - tokens) / (time.perf_counter() - began)


# ticks -------------------------------------------------------------------------------------------


def ticks(name: str, where: Where) -> Numbers:
    """Profile some quanta: the largest kernels, the gaps between kernels, the host's share."""
    k = 2 if where.quick else PROFILED[name]
    engine = _endless(_size(name), k, where)
    began, trained, tokens = time.perf_counter(), engine.training_seconds, engine.tokens
    while time.perf_counter() - began < (0.1 if where.quick else 3.0):
        _step(engine)
    seconds = time.perf_counter() - began
    found = {
        "slots": k,
        "tokens_per_second": (engine.tokens - tokens) / seconds,
        # planning is part of a step; this is the engine's work between two quanta
        "between_quanta": 1 - (engine.training_seconds - trained) / seconds,
    }
    activity = torch.profiler.ProfilerActivity
    chosen = [activity.CUDA] if where.on_gpu else [activity.CPU]
    with torch.profiler.profile(activities=chosen) as profiler:
        for _ in range(1 if where.quick else 4):
            _step(engine)
        if where.on_gpu:
            torch.cuda.synchronize()
    return {**found, **gaps_of(_events(profiler, where))}


def _events(profiler: Any, where: Where) -> list[tuple[str, float, float]]:
    """Return name, begin and end (µs) of each kernel; without a GPU of each operation."""
    kind = torch.autograd.DeviceType.CUDA if where.on_gpu else torch.autograd.DeviceType.CPU
    return [
        (event.name, event.time_range.start, event.time_range.end)
        for event in profiler.events()
        if event.device_type == kind and event.time_range.end > event.time_range.start
    ]


def gaps_of(events: list[tuple[str, float, float]]) -> dict[str, Any]:
    """Return the five names with the largest share of the span, and the share of its gaps.

    Args:
        events: name, begin and end (µs) of kernels, which may overlap.
    """
    if not events:
        raise RuntimeError("the profiler saw no kernel")
    events = sorted(events, key=lambda event: event[1])
    begin, end = events[0][1], max(event[2] for event in events)
    spent: Counter[str] = Counter()
    gaps, reached = [], begin
    for name, low, high in events:
        spent[name] += high - low
        if low > reached:
            gaps.append(low - reached)
        reached = max(reached, high)
    span = end - begin
    return {
        "kernels": len(events),
        "microseconds": span,
        "largest": [[name[:80], time / span] for name, time in spent.most_common(5)],
        "launch_gaps": sum(gap for gap in gaps if gap <= HOST_GAP) / span,
        "host_gaps": sum(gap for gap in gaps if gap > HOST_GAP) / span,
    }


def _folder() -> tempfile.TemporaryDirectory[str]:
    """Return a folder of checkpoints, which may still be written when it is removed."""
    return tempfile.TemporaryDirectory(ignore_cleanup_errors=True)


# refills and reports -----------------------------------------------------------------------------


def refills(name: str, where: Where) -> Numbers:
    """Train many short trials with reports and checkpoints, beside trials without an end."""
    size = _size(name)
    k, updates = (2, 8) if where.quick else (PROFILED[name], 1024)
    endless = _endless(size, k, where)
    rate_of_endless = _rate(endless, where, 3.0)
    del endless
    give_back(torch.device(where.device))
    with _folder() as folder:
        engine = engine_of(
            size.architecture, where, slots=k, dtype=where.dtype, checkpoint_dir=Path(folder)
        )
        count = (3 if where.quick else 4) * k
        for seed in range(count):  # of different lengths, so that they do not end together
            length = updates // 2 + (seed * 37) % (updates // 2)
            engine.add_trial(str(seed), _spec(size.architecture, size.batch, seed, length, 3))
        for _ in range(4):
            _step(engine)
        before, tokens, began = engine.occupancy.now(), engine.tokens, time.perf_counter()
        ended: set[str] = set()
        while len(ended) < count - 2 * k:  # until then a trial waits for each slot
            for report in _step(engine):
                if report.status is not Status.TRAINING:
                    ended.add(report.trial_id)
                    engine.delete_checkpoints(report.trial_id)
        seconds, after = time.perf_counter() - began, engine.occupancy.now()
        rate = (engine.tokens - tokens) / seconds
    return {
        "slots": k,
        "updates": [updates // 2, updates],
        "trials": len(ended),
        "rate_of_endless": rate_of_endless,
        "rate": rate,
        "idle": (after.free_slot_seconds - before.free_slot_seconds)
        / (after.slots * (after.seconds - before.seconds)),
    }


def reports(state: str, where: Where) -> Numbers:
    """Measure what a report of one trial costs its neighbours, with and without a checkpoint."""
    a, counts = (TINY.architecture, (2, 2, 8)) if where.quick else REPORTED[state]
    k, count, updates = counts
    batch = 4 if where.quick else 8
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(_folder()))

        def engine(reporting: bool, checkpoints: Path | None) -> Engine:
            made = engine_of(a, where, slots=k, dtype=where.dtype, checkpoint_dir=checkpoints)
            points = 5 * count  # more than three rounds reach
            first = _spec(a, batch, 0, points * updates, points if reporting else 1)
            made.add_trial("0", first)
            for seed in range(1, k):
                made.add_trial(str(seed), _spec(a, batch, seed))
            for _ in range(4):
                _step(made)
            return made

        sides = {
            "no report": engine(False, None),
            "no checkpoint": engine(True, None),
            "checkpoint": engine(True, folder),
        }
        rounds = by_turns(
            {
                side: partial(_seconds_of_updates, made, count * updates, k, batch)
                for side, made in sides.items()
            },
            1 if where.quick else 3,
        )

    def milliseconds(side: str) -> list[float]:
        pairs = zip(rounds[side], rounds["no report"], strict=True)
        return [1000 * (own - without) / count for own, without in pairs]

    return {
        "slots": k,
        "bytes": 12 * a.num_parameters,
        "validation": milliseconds("no checkpoint"),
        "both": milliseconds("checkpoint"),
        "milliseconds_of_an_update": 1000
        * statistics.median(rounds["no report"])
        / (count * updates),
    }


def _seconds_of_updates(engine: Engine, updates: int, k: int, batch: int) -> float:
    """Return the seconds of so many updates of all slots."""
    length = text_length(engine)
    goal = engine.tokens + updates * k * batch * length
    began = time.perf_counter()
    while engine.tokens < goal:
        _step(engine)
    return time.perf_counter() - began


def text_length(engine: Engine) -> int:
    """Return the tokens of a sequence of the engine's trials."""
    return engine._stacks[0].shape[0].context_length


# calibration -------------------------------------------------------------------------------------


def slots(name: str, where: Where) -> Numbers:
    """Compare the calibrated number of slots with the best of a sweep of engines."""
    size, device = _size(name), torch.device(where.device)
    train = TextDataset(text(size.architecture))
    precision = Precision.of(where.dtype, device)
    precision.set_up(device)
    data = on_device(train, device)
    began = time.perf_counter()
    measure = stack_meter(
        _spec(size.architecture, size.batch, 0), Setup(train, device, precision, data)
    )

    def meter(width: int) -> Measured:
        if where.quick and width > 2:
            raise MemoryError("a rehearsal measures two widths")
        return measure(width)

    chosen = widest_stack(meter, free_bytes(device))
    seconds = time.perf_counter() - began
    widths = {1, chosen}
    for factor in (0.25, 0.5, 2.0, 4.0) if not where.quick else (2.0,):
        widths.add(max(1, round(factor * chosen)))
    rates: dict[int, list[float]] = {}
    for width in sorted(widths):
        give_back(device)
        try:
            engine = _endless(size, width, where)
            if engine.slots < width:
                break  # out of memory: the engine narrowed its stack
            rates[width] = [_rate(engine, where, 0.7) for _ in range(3)]
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            break
        finally:
            engine = None  # type: ignore[assignment]
    medians = {width: spread(each).median for width, each in rates.items()}
    return {
        "chosen": chosen,
        "seconds": seconds,
        "rates": {str(width): each for width, each in rates.items()},
        "of_best": medians[chosen] / max(medians.values()),
    }


# the result --------------------------------------------------------------------------------------


def tables(numbers: Mapping[str, Numbers]) -> list[dict[str, Any]]:
    """Return the tables of this part."""
    found = []
    for name, each in of_kind(numbers, "ticks").items():
        rows = [[kernel, f"{100 * share:.1f} %"] for kernel, share in each["largest"]]
        rows += [
            ["gaps between kernels", f"{100 * each['launch_gaps']:.2f} %"],
            [f"waits of more than {HOST_GAP:.0f} µs", f"{100 * each['host_gaps']:.2f} %"],
            ["host between two quanta", f"{100 * each['between_quanta']:.2f} %"],
        ]
        title = f"{name}, K = {each['slots']}: the time of {each['kernels']:,} kernels"
        found.append({"title": title, "columns": ["", "of the time"], "rows": rows})
    refilled = of_kind(numbers, "refills")
    if refilled:
        rows = [
            [name, each["slots"], each["trials"], each["rate_of_endless"], each["rate"],
             f"{100 * each['idle']:.2f} %"]
            for name, each in refilled.items()
        ]  # fmt: skip
        columns = ["model", "K", "trials", "tokens/s without an end", "tokens/s", "idle slots"]
        found.append({"title": "Short trials with three reports", "columns": columns, "rows": rows})
    reported = of_kind(numbers, "reports")
    if reported:
        rows = [
            [name, each["slots"], each["bytes"] / 1e6, each["milliseconds_of_an_update"],
             [*spread(each["validation"])], [*spread(each["both"])]]
            for name, each in reported.items()
        ]  # fmt: skip
        columns = [
            "state", "K", "MB", "an update, ms", "a report without checkpoint, ms",
            "with checkpoint, ms",
        ]  # fmt: skip
        title = "What a report of one trial costs all slots"
        found.append({"title": title, "columns": columns, "rows": rows})
    for name, each in of_kind(numbers, "slots").items():
        rows = [
            [int(width), [*spread(rates)], "chosen" if int(width) == each["chosen"] else ""]
            for width, rates in each["rates"].items()
        ]
        title = f"{name}: slots by calibration, which took {each['seconds']:.1f} s"
        found.append({"title": title, "columns": ["slots", "tokens/s", ""], "rows": rows})
    return found


def verdicts(numbers: Mapping[str, Numbers]) -> Verdicts:
    """Return the verdicts of this part."""
    found = Verdicts()
    profiled = of_kind(numbers, "ticks")
    for name in PROFILED:
        each = profiled.get(name)
        gaps = each["launch_gaps"] if each else None
        host = each["host_gaps"] if each else None
        found.add(f"{name}: gaps between kernels, share of the time", gaps, most=MOST_GAPS)
        found.add(f"{name}: waits for the host, share of the time", host, most=MOST_GAPS)
    refilled = [*of_kind(numbers, "refills").values()]
    idle = max((each["idle"] for each in refilled), default=None)
    found.add("share of slot-time that is idle while trials wait", idle, most=MOST_IDLE)
    calibrated = of_kind(numbers, "slots")
    for name in CALIBRATED:
        each = calibrated.get(name)
        what = f"{name}: speed with the calibrated slots, of the best"
        found.add(what, each["of_best"] if each else None, least=LEAST_OF_BEST)
    return found


def notes(numbers: Mapping[str, Numbers]) -> list[str]:
    """Return notes on this part."""
    return [
        f"{name}: refills, validation and checkpoints of trials of {low} to {high} updates cost "
        f"{100 * (1 - each['rate'] / each['rate_of_endless']):.1f} % of the speed."
        for name, each in of_kind(numbers, "refills").items()
        for low, high in [each["updates"]]
    ]
