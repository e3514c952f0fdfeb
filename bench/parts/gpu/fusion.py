"""Part `fusion` of gpu.py: tokens/s of a stack beside plain loops that share the GPU.

The sides are those of bench/fusion.py. They are measured in small groups, so that the most
important ones come first and a group is never measured in half: the stack by K; beside eager loops,
one process and several; beside compiled ones; beside vmap. Each group has the stack and the peak of
the device in it, because ratios are computed round by round.

K = trials of a stack.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import partial
from typing import Any

from parts.fusion.jobs import SIZES, TINY, Job, Size
from parts.fusion.tables import LEAST_RATIO, LEAST_UTILISATION, STACK, tables_of
from parts.gpu.measurement import Measurement, Numbers, Verdicts, Where
from parts.measuring import ratios, spread

ROUNDS = 3
AT_LEAST = 1.05  # times as fast as any side, at every size
_KINDS = ("eager", "compiled", "shared and compiled", "vmap")
_SECONDS = {"eager": 60.0, "compiled": 100.0, "shared and compiled": 100.0, "vmap": 60.0}


def bench_of(where: Where, rounds: int = ROUNDS) -> Any:
    """Return the settings of bench/fusion.py on this device."""
    from fusion import Bench

    has_mask = hasattr(os, "sched_getaffinity")
    cores = len(os.sched_getaffinity(0)) if has_mask else os.cpu_count() or 1
    return Bench(
        device=where.device,
        dtype=where.dtype,
        rounds=1 if where.quick else rounds,
        seconds=0.1 if where.quick else 1.0,
        fresh=False,
        quick=where.quick,
        shared=dict(where.shared),
        cores=1 if where.quick else cores,
    )


def losses_of(where: Where) -> Any:
    """Return the losses of a model, which must be equal on all sides."""
    from fusion import TOLERANCE, Losses

    return Losses(TOLERANCE[where.dtype])


def sizes(where: Where) -> dict[str, Size]:
    """Return the models to train, by name."""
    return {"tiny": TINY} if where.quick else SIZES["cuda"]


def measurements(where: Where) -> dict[str, Measurement]:
    """Return the measurements of this part: of each group, all sizes."""
    found: dict[str, Measurement] = {}
    for name in sizes(where):
        found[f"{name}: by K"] = Measurement(partial(by_width, name), 60)
        found[f"{name}: beside eager loops"] = Measurement(partial(beside, name, "eager"), 60)
    for kind in _KINDS[1:] if where.on_gpu else ():
        for name in sizes(where):
            what = f"{name}: beside {kind}" if kind == "vmap" else f"{name}: beside {kind} loops"
            found[what] = Measurement(partial(beside, name, kind), _SECONDS[kind])
    return found


def by_width(name: str, where: Where) -> Numbers:
    """Measure the stack at K = 1, 2, 4 … until more trials gain nothing."""
    from fusion import widths

    size, losses = sizes(where)[name], losses_of(where)
    rates, ended = widths(bench_of(where, rounds=1), size, STACK, losses)
    if not rates:
        raise RuntimeError(f"the stack cannot train even one trial: {ended}")
    return {**size.described, "by_width": {str(k): each for k, each in rates.items()}} | {
        "ended": ended,
        "largest_difference": losses.largest,
    }


def beside(name: str, kind: str, where: Where) -> Numbers:
    """Measure the stack beside a group of other sides, by turns."""
    from fusion import PROCESSES, best_of, rates_of, widths

    size, bench, losses = sizes(where)[name], bench_of(where), losses_of(where)
    quickly = bench_of(where, rounds=1)
    known = where.known.get(f"{name}: by K")
    by_k = known["by_width"] if known else widths(quickly, size, STACK, losses)[0]
    k = best_of({int(width): each for width, each in by_k.items()})
    several = PROCESSES if where.on_gpu else (2,)
    jobs: dict[str, list[Job]] = {STACK: [bench.job(size, STACK, k)]}
    if kind == "eager":
        jobs["eager"] = [bench.job(size, "eager")]
        for p in several:
            jobs[f"eager, {p} processes"] = [bench.job(size, "eager", number=n) for n in range(p)]
    elif kind == "compiled":
        jobs |= {side: [bench.job(size, side)] for side in ("compiled", "compiled, graphs")}
    elif kind == "shared and compiled":
        for p in several[1:]:
            jobs[f"compiled, {p} processes"] = [
                bench.job(size, "compiled", number=n) for n in range(p)
            ]
    else:
        jobs["vmap"] = [bench.job(size, "vmap", best_of(widths(quickly, size, "vmap", losses)[0]))]
    jobs["peak"] = [bench.job(size, "peak")]
    rates, failed = rates_of(bench, jobs, losses)
    return {
        **size.described,
        "best": k,
        "trials": {side: sum(job.trials for job in each) for side, each in jobs.items()},
        "rates": rates,
        "failed": failed,
        "largest_difference": losses.largest,
        "tolerance": losses.tolerance,
        "sharing": where.sharing,
    }


# the result --------------------------------------------------------------------------------------


def tables(numbers: Mapping[str, Numbers]) -> list[dict[str, Any]]:
    """Return the tables of this part."""
    found = []
    for name, each in numbers.items():
        if "by_width" in each:
            rows = [[int(k), [*spread(rates)]] for k, rates in each["by_width"].items()]
            title = f"{name}, trials at a time: {each['parameters'] / 1e6:.3g} million parameters"
            found.append({"title": title, "columns": ["K", "tokens/s"], "rows": rows})
        else:
            found.append(tables_of(name, {**each, "by_width": {}})[0])
    return found


def verdicts(numbers: Mapping[str, Numbers]) -> Verdicts:
    """Return the verdicts of this part."""
    found = Verdicts()
    names = dict.fromkeys([*SIZES["cuda"], *(each.partition(":")[0] for each in numbers)])
    for name in names:
        groups = [each for what, each in numbers.items() if what.startswith(f"{name}: beside")]
        eager = numbers.get(f"{name}: beside eager loops")
        if name in LEAST_RATIO["cuda"]:
            what = f"{name}: times as fast as eager processes that share the GPU"
            least = LEAST_RATIO["cuda"][name]
            found.add(what, _over(eager, ", ") if eager else None, least=least)
        over = [ratio for each in groups if (ratio := _over(each)) is not None]
        found.add(f"{name}: times as fast as any side", min(over, default=None), least=AT_LEAST)
        if name == "50M":
            used = _used(eager) if eager else None
            found.add(f"{name}: share of the measured peak", used, least=LEAST_UTILISATION)
    return found


def _over(group: Numbers, part: str = "") -> float | None:
    """Return how many times as fast as the fastest other side with `part` in its name ours is."""
    rates = group["rates"]
    others = [name for name in rates if name not in {STACK, "peak"} and part in name]
    medians = [ratios(rates[STACK], rates[name]).median for name in others]
    return min(medians, default=None)


def _used(group: Numbers) -> float:
    """Return the share of the peak that our stack uses."""
    rates = group["rates"]
    flops = [group["flops_per_token"] * rate for rate in rates[STACK]]
    return ratios(flops, rates["peak"]).median


def notes(numbers: Mapping[str, Numbers]) -> list[str]:
    """Return notes on this part."""
    found = [
        "The peak is that of square matrices in the same dtype, by turns with the sides; a model's "
        "operations are counted as Architecture.flops_per_token does.",
        *dict.fromkeys(each["sharing"] for each in numbers.values() if each.get("sharing")),
    ]
    for name, each in numbers.items():
        found += [
            f"{name}: {side} was not measured: {why}."
            for side, why in each.get("failed", {}).items()
        ]
        if each.get("ended"):
            found.append(f"{name}: {each['ended']}.")
    largest = max((each["largest_difference"] for each in numbers.values()), default=0.0)
    found.append(f"The losses of all sides are equal within {largest:.1g}.")
    return found
