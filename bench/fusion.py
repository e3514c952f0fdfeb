"""Training speed of a stack, beside plain training loops, several processes, and vmap.

    python bench/fusion.py                      four sizes, some minutes
    python bench/fusion.py --sizes 50M --fresh  one size; processes that do not fit all at once
    python bench/fusion.py --quick              a tiny model, once, as a test of the bench
    python bench/fusion.py --out FILE.json --plot FILE.png

The stack is measured alone first, at K = 1, 2, 4 … trials, until more trials gain nothing. Then
these sides alternate, each in processes of its own: the stack at its best K; a plain training loop
of torch's own parts (fused AdamW), eager and compiled; P of these loops at one time; and vmap over
a stack of such models, at its own best K. The bench counts useful tokens of all trials, after
warm-up. All sides train the same trials, and the bench fails if their first losses differ. The
stack has a process for each core, as in a search, with ticks that run operation by operation and,
except in a quick test, with compiled ticks (`engine.compile`). It is measured in mixed_bfloat16 as
well (`engine.dtype`), beside plain loops under torch's autocast to bfloat16.

This is for a CPU; `bench/gpu.py --part fusion` measures a GPU with the same parts.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from contextlib import ExitStack, closing, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from parts.fusion.jobs import SIZES, TINY, Job, Size
from parts.fusion.processes import Group, SideError
from parts.fusion.tables import COMPILED, STACK, low, ours_of, plot, result_of
from parts.measuring import about, add_options, by_turns, finish, spread

from model.device.compiler import check_compiler
from model.errors import CompileError

GAIN = 1.02  # a smaller ratio counts as no gain
TOLERANCE = {"float32": 1e-3, "tf32": 5e-3, "bfloat16": 2e-2}  # of the losses, relative
PROCESSES = (2, 4, 8)  # that share a GPU


@dataclass(frozen=True)
class Bench:
    """Settings of the measurements of all sizes."""

    device: str
    dtype: str
    rounds: int
    seconds: float
    fresh: bool
    quick: bool
    shared: dict[str, str]  # environment of processes that share a GPU
    cores: int

    def job(
        self,
        size: Size,
        side: str,
        trials: int = 1,
        number: int = 0,
        threads: int = 1,
        dtype: str | None = None,
    ) -> Job:
        """Return the job of a process; `number` distinguishes the processes of one side."""
        return Job(
            side=side,
            architecture=size.architecture,
            batch=size.batch,
            trials=trials,
            seed=number * trials,
            check=size.check,
            checked=size.checked,
            threads=threads,
            device=self.device,
            dtype=dtype or self.dtype,
        )


def tell(text: str) -> None:
    """Show progress on a terminal."""
    if sys.stderr.isatty():
        print(f"\r{text}\x1b[K", end="", file=sys.stderr)


class Losses:
    """Training losses by seed, which must be equal on all sides."""

    def __init__(self, tolerance: float) -> None:
        self.tolerance = tolerance
        self.largest = 0.0  # relative difference so far
        self._first: dict[int, float] = {}

    def check(self, name: str, losses: dict[int, float], dtype: str | None = None) -> None:
        """Compare losses with the first ones of their seeds.

        Args:
            name: name of the side.
            losses: training losses by seed.
            dtype: dtype of the side, if it is not that of the others.

        Raises:
            SystemExit: if they differ by more than the tolerance, or one is not a number.
        """
        for seed, loss in losses.items():
            first = self._first.setdefault(seed, loss)
            difference = abs(loss - first) / first
            if not difference <= (TOLERANCE[dtype] if dtype else self.tolerance):
                raise SystemExit(
                    f"{name}: the training loss of seed {seed} is {loss:.6g}, and {first:.6g} on "
                    f"another side; speeds of different trainings are not compared"
                )
            if dtype is None:
                self.largest = max(self.largest, difference)


def widths(bench: Bench, size: Size, side: str, losses: Losses) -> tuple[dict[int, Any], str]:
    """Measure one process at K = 1, 2, 4 …, until two in a row gain nothing.

    Returns:
        K → tokens/s in each round; and the reason why no larger K was measured, or "".

    Raises:
        SystemExit: if not even the smallest K can be measured.
    """
    threads = 1 if side == STACK else bench.cores
    k, best, idle = (1 if side == STACK else 2), 0.0, 0
    rates_by_width: dict[int, list[float]] = {}
    with closing(Group([bench.job(size, side, k, threads=threads)])) as group:
        while True:
            tell(f"{side} at K = {k}")
            try:
                group.get_ready()
                losses.check(f"{side} at K = {k}", group.losses)
                rates_by_width[k] = [group.rate(bench.seconds) for _ in range(bench.rounds)]
            except SideError as error:
                return rates_by_width, f"K = {k} failed: {error}"
            reached = spread(rates_by_width[k]).median
            idle = 0 if reached > GAIN * best else idle + 1
            k, best = 2 * k, max(best, reached)
            if idle == 2 or k > size.most:
                return rates_by_width, "" if idle == 2 else f"more than {k // 2} were not tried"
            group.begin([bench.job(size, side, k, threads=threads)])


def best_of(rates_by_width: dict[int, list[float]]) -> int:
    """Return the smallest K that is as fast as any."""
    medians = {k: spread(rates).median for k, rates in rates_by_width.items()}
    return min(k for k, rate in medians.items() if GAIN * rate >= max(medians.values()))


def sides(bench: Bench, size: Size, k: int, k_vmap: int) -> dict[str, list[Job]]:
    """Return the jobs of each side, one for each process."""
    job, all_cores = partial(bench.job, size), bench.cores
    ours = (STACK,) if bench.quick or not _may_compile() else (COMPILED, STACK)
    plain = ("eager",) if bench.quick else ("compiled", "eager")
    p = 1 if bench.quick else max(2, bench.cores)  # as in a search, a process for each core
    jobs = {f"{side}, {p} processes": [job(side, k, n) for n in range(p)] for side in ours}
    jobs |= {side: [job(side, threads=all_cores)] for side in reversed(plain)}
    jobs |= {f"{side}, {p} processes": [job(side, number=n) for n in range(p)] for side in plain}
    for side in (*ours, *plain):
        width, dtype = (k, "mixed_bfloat16") if side in ours else (1, "bfloat16")
        jobs[low(side, p)] = [job(side, width, n, dtype=dtype) for n in range(p)]
    jobs["vmap"] = [job("vmap", k_vmap, threads=all_cores)]
    return jobs | {"peak": [job("peak", threads=all_cores)]}


def _may_compile() -> bool:
    """True if ticks of ours can be compiled here."""
    try:
        check_compiler()
    except CompileError as error:
        print(f"ticks are not compiled: {error}", file=sys.stderr)
        return False
    return True


def rates_of(
    bench: Bench, plan: dict[str, list[Job]], losses: Losses
) -> tuple[dict[str, list[float]], dict[str, str]]:
    """Return side → rate in each round, and side → reason why it failed."""
    failed: dict[str, str] = {}
    measured: dict[str, Callable[[], float]] = {}
    with ExitStack() as stack:

        def begin(jobs: list[Job]) -> Group:
            return stack.enter_context(
                closing(Group(jobs, bench.shared if len(jobs) > 1 else None))
            )

        def once(jobs: list[Job]) -> float:
            with closing(begin(jobs)) as group:
                group.get_ready()
                return group.rate(bench.seconds)

        begun = {} if bench.fresh else {name: begin(jobs) for name, jobs in plan.items()}
        for name, jobs in plan.items():
            tell(f"{name} gets ready")
            try:
                with closing(begin(jobs)) if bench.fresh else nullcontext(begun[name]) as group:
                    group.get_ready()
                    dtype = "bfloat16" if jobs[0].dtype != bench.dtype else None
                    losses.check(name, group.losses, dtype)
            except SideError as error:
                failed[name] = str(error)
                continue
            measured[name] = (
                partial(once, jobs) if bench.fresh else partial(group.rate, bench.seconds)
            )
        if not {ours_of(plan), "peak"} <= measured.keys():
            raise SystemExit(f"these cannot be measured: {failed}")
        return by_turns(measured, bench.rounds), failed


def measure(bench: Bench, size: Size) -> dict[str, Any]:
    """Measure all sides for one size of model."""
    losses = Losses(TOLERANCE[bench.dtype])
    by_width, ended = widths(bench, size, STACK, losses)
    if not by_width:
        raise SystemExit(f"the stack cannot train even one trial: {ended}")
    quickly = replace(bench, rounds=1)  # only to choose K
    of_vmap = widths(quickly, size, "vmap", losses)[0] if size.most > 2 else {}
    k, k_vmap = best_of(by_width), best_of(of_vmap) if of_vmap else 2
    plan = sides(bench, size, k, k_vmap)
    rates, failed = rates_of(bench, plan, losses)
    return {
        **size.described,
        "by_width": {str(width): rates for width, rates in by_width.items()},
        "ended": ended,
        "best": k,
        "trials": {name: sum(job.trials for job in jobs) for name, jobs in plan.items()},
        "rates": rates,
        "failed": failed,
        "largest_difference": losses.largest,
        "tolerance": losses.tolerance,
    }


def options_of() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--sizes", nargs="+", choices=SIZES["cpu"], default=list(SIZES["cpu"]))
    parser.add_argument("--rounds", type=int, help="spans that each side is timed (3)")
    parser.add_argument("--seconds", type=float, help="of a span, at least (2)")
    parser.add_argument("--fresh", action="store_true", help="restart processes for each span: "
                        "for a memory that does not hold those of all sides")  # fmt: skip
    add_options(parser, "a tiny model, once")
    options = parser.parse_args()
    if options.rounds is None:
        options.rounds = 1 if options.quick else 3
    if options.seconds is None:
        options.seconds = 0.2 if options.quick else 2.0
    if options.rounds < 1:
        parser.error(f"--rounds must be at least 1, got {options.rounds}")
    return options


def main() -> int:
    """Measure all sizes, and print the result."""
    options = options_of()
    sizes = {"tiny": TINY} if options.quick else {n: SIZES["cpu"][n] for n in options.sizes}
    where = about(["torch", "numpy"], rehearsal=options.quick, dtype="float32")
    bench = Bench(
        "cpu", "float32", options.rounds, options.seconds, options.fresh, options.quick,
        shared={}, cores=where["cores"],
    )  # fmt: skip
    by_size = {name: measure(bench, size) for name, size in sizes.items()}
    finish(result_of(by_size, where), options, plot)
    return 0


if __name__ == "__main__":
    sys.exit(main())
