"""Does the best learning rate stay from a proxy to its target? Sweeps over width and depth.

    python bench/transfer.py                          all parts, about two hours on two cores
    python bench/transfer.py --parts width depth      only some parts: width, depth, target
    python bench/transfer.py --tokens 100_000 --seeds 1 --processes 1    a smaller measurement
    python bench/transfer.py --quick                  tiny models, as a test of the bench
    python bench/transfer.py --out FILE.json --plot FILE.png

All models are trained from scratch on the source text of Python's standard library, with AdamW, for
equally many tokens (the proxy of `target` for fewer). *Scaled* models have the factors of proxies;
*standard* ones are the same models without them. A sweep has learning rates an octave (a factor of
two) apart, all with the same seeds, and grows until its lowest loss lies inside. Its optimum is the
lowest point of a bowl in log2 α that may be steeper on one side, alike for all sizes
(`tuner.transfer.verdict`); intervals are of 90 %. A parabola through the lowest loss and its two
neighbours is shown beside it.

    width     d_model 32 to 256, 2 layers: how far the optimum moves
    depth     2 to 8 layers, d_model 64
    target    d_model 256, 4 layers: its own sweep, beside the best rate of the sweep of a proxy
              of an eighth of the width, half of the depth and a quarter of the tokens

Compute is training tokens times the operations of a token. That of a transfer is the proxy's sweep
and one training of the target.

Each loss is appended to FILE.losses as it is measured (--points names another file); the command
goes on where it was cut off. Losses do not depend on the number of processes.
"""

from __future__ import annotations

import argparse
import math
import os
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from parts.measuring import BENCH, about, add_options, finish, goal, save_figure

from model.corpus.prepare import prepare
from tuner.results.bowls import Estimate
from tuner.space.data_facts import DataFacts
from tuner.space.settings import Proxy
from tuner.space.space import SearchSpace
from tuner.space_file.load import read_space
from tuner.space_file.overrides import Override
from tuner.transfer.sweep import KINDS, Size, Sweep, Trainer, Winner, measure, sweep_of
from tuner.transfer.verdict import Optimum, move_of

RATE = 0.004  # of AdamW at the target, the middle of the first sweep
LARGEST_MOVE, SMALLEST_MOVE = 0.5, 1.5  # octaves over 8 times the width: scaled, standard
MOST_LOSS, MOST_COMPUTE = 0.5, 10.0  # % of the best loss, % of the target's own sweep
SAME = 0.01  # octaves by which an optimum may differ between machines
SPACE = BENCH / "parts" / "transfer.yaml"


@dataclass(frozen=True)
class Part:
    """A part of the measurement.

    Attributes:
        title: title of its table.
        d_model: width of the largest model.
        n_layers: depth of the largest model.
        shares: text and shares of each size, smallest first.
        ratio: size of the largest model over the smallest one's.
    """

    title: str
    d_model: int
    n_layers: int
    shares: Mapping[str, Proxy]
    ratio: float

    @property
    def sizes(self) -> list[Size]:
        """The sizes, the smallest at 0 octaves and the largest at log2 of `ratio`."""
        step = math.log2(self.ratio) / (len(self.shares) - 1)
        return [Size(proxy, i * step, text) for i, (text, proxy) in enumerate(self.shares.items())]


def parts_of(*, quick: bool) -> dict[str, Part]:
    """Return the parts by name."""
    wide, narrow, deep = (32, 16, 4) if quick else (256, 64, 8)
    widths = [wide // 4, wide // 2, wide] if quick else [wide // 8, wide // 4, wide // 2, wide]
    depths = [2, 4] if quick else [2, 4, 8]
    target = Proxy(width=1 / 4 if quick else 1 / 8, depth=1 / 2, tokens=1 / 4)
    return {
        "width": Part(
            "optimum over the width", wide, 2,
            {f"d_model {d}": Proxy(width=d / wide) for d in widths}, wide / widths[0],
        ),
        "depth": Part(
            "optimum over the depth", narrow, deep,
            {f"{n} layers": Proxy(depth=n / deep) for n in depths}, deep / depths[0],
        ),
        "target": Part(
            "target trained with the proxy's best rate", wide, 4,
            {"proxy": target, "target": Proxy()}, 1 / target.width,
        ),
    }  # fmt: skip


class Family:
    """Models of a part, and what trains them.

    Args:
        part: the part.
        options: options of the command.
        corpora: folder of prepared corpora.
        points: file of the losses.
    """

    def __init__(
        self, part: Part, options: argparse.Namespace, corpora: Path, points: Path
    ) -> None:
        sizes = {
            "model.d_model": part.d_model, "model.n_layers": part.n_layers,
            "model.n_heads": part.d_model // 16 or 1, "budget.tokens": options.tokens,
        }  # fmt: skip
        if options.quick:
            sizes |= {"model.context_length": 16, "budget.validation_tokens": 1024}
        overrides = [Override.parse(f"{key}={value}") for key, value in sizes.items()]
        space: SearchSpace = read_space(SPACE, overrides)[0]
        facts = DataFacts.of(prepare(space.data, space.tokenizer, corpora))
        self.winner = Winner(space, {**space.defaults(), "max_learning_rate": RATE}, facts)
        self.trainer = Trainer(corpora, points, options.processes, _on_trained)
        self.sizes, self.seeds = part.sizes, options.seeds

    def both_kinds(self) -> list[Sweep]:
        """Train the sweeps of all sizes, scaled and standard."""
        return measure(self.winner, self.sizes, self.trainer, seeds=self.seeds)

    def proxy_and_target(self) -> tuple[list[Sweep], float]:
        """Train the scaled sweeps of both, the target's with the best rate of the proxy as well.

        Returns:
            Both sweeps, and the best rate of the proxy as log2 of a factor on `RATE`.
        """
        proxy, target = (
            sweep_of(self.winner, "scaled", size, self.trainer, self.seeds, 0.0)
            for size in self.sizes
        )
        best = best_of(proxy)
        for rate in (lowest(proxy), best):
            if rate in target.losses:
                continue
            specs = [
                self.winner.spec("scaled", target.size, rate, seed) for seed in range(self.seeds)
            ]
            losses = tuple(self.trainer.losses(specs, "target with the proxy's rate"))
            target = replace(target, losses=dict(sorted({**target.losses, rate: losses}.items())))
        return [proxy, target], best

    def flops(self, size: Size) -> float:
        """Return the operations of one training of a size."""
        spec = self.winner.spec("scaled", size, 0.0, 0)
        return spec.budget_tokens * spec.architecture.flops_per_token


def lowest(sweep: Sweep) -> float:
    """Return the rate with the lowest mean loss, as log2 of a factor on `RATE`."""
    return min(sweep.losses, key=lambda x: _mean(sweep.losses[x]))


def best_of(proxy: Sweep) -> float:
    """Return the rate at the lowest point of a sweep's bowl, as log2 of a factor on `RATE`.

    Neighbours may differ by less than their noise: the lowest of them says the rate to an octave.
    """
    (best,) = optima_of([proxy])
    return lowest(proxy) if best is None else round(best.octaves, 3)


def optima_of(sweeps: Sequence[Sweep]) -> list[Optimum | None]:
    """Return the optimum of each sweep, scaled ones first, as `move_of` finds them."""
    by_kind = ([sweep for sweep in sweeps if sweep.kind == kind] for kind in KINDS)
    return [best for own in by_kind if own for best in move_of(own).optima]


def through_three(sweep: Sweep) -> float | None:
    """Return the minimum of the parabola through the lowest mean loss and its neighbours.

    Returns:
        log2 of a factor on `RATE`; None if the lowest loss has no finite neighbour on a side.
    """
    at = lowest(sweep)
    left, middle, right = (_mean(sweep.losses.get(at + step, [math.inf])) for step in (-1, 0, 1))
    if not math.isfinite(left + right) or left + right == 2 * middle:
        return None
    return at + (left - right) / (2 * (left + right - 2 * middle))


def _on_trained(text: str, number: int, count: int) -> None:
    print(f"{text}: {number}/{count}", file=sys.stderr, flush=True)


# results ----------------------------------------------------------------------------------------


def axis_result(part: Part, sweeps: Sequence[Sweep]) -> tuple[list[list[Any]], dict[str, Any]]:
    """Return the rows of a table, and kind → octaves by which the optimum moves, or None."""
    rows: list[list[Any]] = []
    moved: dict[str, Any] = {}
    for kind in KINDS:
        own = [sweep for sweep in sweeps if sweep.kind == kind]
        move = move_of(own)
        for sweep, best in zip(own, move.optima, strict=True):
            rows.append([f"{kind}, {sweep.size.text}", *_cells(sweep, best)])
        moved[kind] = None
        if move.octaves is not None and move.given_up is not None:
            moved[kind] = [move.octaves.value, move.octaves.low, move.octaves.high]
            text = f"{kind}, octaves over {part.ratio:g} times the size"
            rows.append([text, None, move.octaves.text(), None])
            ends = [through_three(sweep) for sweep in (own[0], own[-1])]
            shift = "–" if None in ends else f"{ends[1] - ends[0]:+.2f}"  # type: ignore[operator]
            rows.append([f"{kind}, by three rates of each size", None, shift, None])
            lost = Estimate(*(100 * v for v in vars(move.given_up).values()))
            rows.append([f"{kind}, loss given up, %", None, lost.text(".2f"), None])
    return rows, moved


def _cells(sweep: Sweep, best: Optimum | None) -> list[Any]:
    """Return range of the rates, best rate with its interval, and loss there."""
    tried = f"{RATE * 2 ** min(sweep.losses):.2g} – {RATE * 2 ** max(sweep.losses):.2g}"
    if best is None:
        return [tried, "not certain", None]
    found = Estimate.of(best.octaves, best.draws)
    value, low, high = (RATE * 2**x for x in (found.value, found.low, found.high))
    return [tried, f"{value:.2g} ({low:.2g} … {high:.2g})", f"{best.loss:.4f}"]


def target_result(
    sweeps: Sequence[Sweep], rate: float, flops: Sequence[float], seeds: int
) -> tuple[list[list[Any]], dict[str, Any]]:
    """Return the rows of the table, and the loss given up and the compute, in %.

    Args:
        sweeps: of the proxy and of the target.
        rate: best rate of the proxy, with which the target was trained.
        flops: operations of one training of each.
        seeds: seeds of each rate.
    """
    proxy, target = ({x: _mean(v) for x, v in s.losses.items()} for s in sweeps)
    own = {x: loss for x, loss in target.items() if x == round(x)}  # whole octaves: its own sweep
    tried, best = lowest(sweeps[0]), min(own, key=own.__getitem__)
    alone = len(proxy) * flops[0] / (len(own) * flops[1])
    compute = alone + 1 / (len(own) * seeds)
    shares = f"{100 * compute:.2g}"
    rows = [["proxy's best tried rate", f"{RATE * 2**tried:.2g}", f"{proxy[tried]:.4f}", None]]
    for what, x, share in (
        ("target with the proxy's best rate", rate, shares),
        ("target with its best tried rate", tried, shares),
        ("target's own best", best, "100"),
    ):
        rows.append([what, f"{RATE * 2**x:.2g}", f"{target[x]:.4f}", share])
    found = {
        "given_up": 100 * (target[rate] / target[best] - 1),
        "given_up_by_tried": 100 * (target[tried] / target[best] - 1),
        "compute": 100 * compute,
        "tuning_alone": 100 * alone,
    }
    return rows, found


def result_of(numbers: Mapping[str, Any], about: Mapping[str, Any]) -> dict[str, Any]:
    """Return the result in the format of `parts.measuring`.

    Args:
        numbers: name of a part → its sweeps, the operations of one training of each size, and of
            `target` the rate of the proxy with which the target was trained.
        about: `measuring.about` with tokens and seeds.
    """
    tables, goals, notes = [], [], []
    for name, (part, sweeps) in sweeps_of(numbers, about).items():
        if name == "target":
            rate, now = numbers[name]["rate"], best_of(sweeps[0])
            rows, found = target_result(sweeps, rate, numbers[name]["flops"], about["seeds"])
            if abs(rate - now) > SAME:
                notes.append(
                    f"The target was trained with {RATE * 2**rate:.2g}, the proxy's best rate by "
                    f"the statistics of that day; by those of these tables it is "
                    f"{RATE * 2**now:.2g}."
                )
            columns = ["model", "α_max", "val_loss, nats per token", "% of the sweep's compute"]
            if math.isfinite(found["given_up"]):
                what = "loss given up with the transferred rate, % of the target's own best"
                goals.append(goal(what, found["given_up"], most=MOST_LOSS))
            else:
                notes.append("The target diverged with the rate of its proxy: goal missed.")
            what = "compute of the transfer, % of that of the target's own sweep"
            goals.append(goal(what, found["compute"], most=MOST_COMPUTE))
        else:
            rows, found = axis_result(part, sweeps)
            columns = ["sweep", "rates tried", "best rate (90 % interval)", "val_loss there"]
            if name == "width":
                goals += _width_goals(part, found, notes)
        tables.append({"title": part.title, "columns": columns, "rows": rows})
    notes.append(f"{about['tokens']:,} tokens a trial, {about['seeds']} paired seeds.")
    return {
        "bench": "transfer",
        "about": dict(about),
        "tables": tables,
        "goals": [] if about["rehearsal"] else goals,
        "notes": notes,
        "numbers": dict(numbers),
    }


def _width_goals(part: Part, moved: Mapping[str, Any], notes: list[str]) -> list[Any]:
    goals = []
    for kind, limit in (
        ("scaled", {"most": LARGEST_MOVE}), ("standard", {"least": SMALLEST_MOVE})
    ):  # fmt: skip
        if moved[kind] is None:
            notes.append(f"A bowl shows no certain optimum of a {kind} size: goal missed.")
            continue
        what = f"{kind}: octaves by which the optimum moves over {part.ratio:g} times the width"
        goals.append(goal(what, abs(moved[kind][0]), **limit))
    return goals


def as_json(sweep: Sweep) -> dict[str, Any]:
    """Return a sweep as JSON; octaves, log2 of a factor on `RATE`, are keys of the losses."""
    losses = {
        repr(x): [v if math.isfinite(v) else None for v in values]
        for x, values in sweep.losses.items()
    }
    return {"kind": sweep.kind, "size": sweep.size.text, "losses": losses}


def sweeps_of(
    numbers: Mapping[str, Any], about: Mapping[str, Any]
) -> dict[str, tuple[Part, list[Sweep]]]:
    """Return name → part and its sweeps, from their JSON."""
    parts, sweeps = parts_of(quick=about["rehearsal"]), {}
    for name, measured in numbers.items():
        sizes = {size.text: size for size in parts[name].sizes}
        sweeps[name] = (
            parts[name],
            [
                Sweep(
                    each["kind"],
                    sizes[each["size"]],
                    {
                        float(x): tuple(math.inf if v is None else v for v in values)
                        for x, values in each["losses"].items()
                    },
                )
                for each in measured["sweeps"]
            ],
        )
    return sweeps


def plot(result: Mapping[str, Any], path: Path) -> None:
    """Draw loss against learning rate: a row for each part, a column for each kind."""
    from matplotlib.figure import Figure

    measured = sweeps_of(result["numbers"], result["about"])
    figure = Figure(figsize=(9, 3.2 * len(measured)))
    panels = figure.subplots(len(measured), 2, squeeze=False, sharey="row")
    for row, (name, (_, sweeps)) in zip(panels, measured.items(), strict=True):
        finite = [v for s in sweeps for v in map(_mean, s.losses.values()) if math.isfinite(v)]
        most = 1 + max(min(map(_mean, s.losses.values())) for s in sweeps)
        for axes, kind in zip(row, KINDS, strict=True):
            found = zip(sweeps, optima_of(sweeps), strict=True)
            own = [(sweep, best) for sweep, best in found if sweep.kind == kind]
            axes.set_visible(bool(own))
            for index, (sweep, best) in enumerate(own):
                rates = [RATE * 2**x for x in sweep.losses]
                means = [_mean(values) for values in sweep.losses.values()]
                axes.plot(rates, means, f"C{index}o-", markersize=4, label=sweep.size.text)
                if best is not None:
                    axes.plot(RATE * 2**best.octaves, best.loss, f"C{index}D", ms=9, mfc="none")
            axes.set_xscale("log")
            axes.set_title(f"{name}, {kind}", fontsize="medium")
            axes.set_xlabel("α_max")
            # far from its optimum a loss says nothing, and hides the rest
            axes.set_ylim(min(finite) - 0.05, min(max(finite) + 0.05, most))
        row[0].set_ylabel("val_loss (◇ optimum)")
        row[0].legend(fontsize="small")
    save_figure(figure, path, 150)


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def main() -> int:
    """Measure, and print the result."""
    options = _options()
    with tempfile.TemporaryDirectory() as folder:
        corpora = options.corpora or Path(folder, "corpora")
        points = options.points or Path(folder, "points.losses")
        points.parent.mkdir(parents=True, exist_ok=True)
        numbers = {}
        parts = parts_of(quick=options.quick)
        for name in options.parts:
            family = Family(parts[name], options, corpora, points)
            found: dict[str, Any] = {}
            if name == "target":
                sweeps, found["rate"] = family.proxy_and_target()
            else:
                sweeps = family.both_kinds()
            flops = [family.flops(size) for size in family.sizes]
            numbers[name] = {"sweeps": [*map(as_json, sweeps)], "flops": flops, **found}
    where = about(["torch"], rehearsal=options.quick, tokens=options.tokens, seeds=options.seeds)
    finish(result_of(numbers, where), options, plot)
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    names = list(parts_of(quick=False))
    parser.add_argument("--parts", nargs="+", choices=names, default=names, help="default: all")
    parser.add_argument("--tokens", type=int, help="of a trial (default: 400,000)")
    parser.add_argument("--seeds", type=int, help="paired seeds of each rate (default: 3)")
    parser.add_argument("--processes", type=int, help="default: one for each core")
    parser.add_argument("--corpora", type=Path, help="folder of prepared corpora")
    parser.add_argument(
        "--points", type=Path, help="file of the losses (default: as --out, .losses)"
    )
    add_options(parser, "tiny models")
    options = parser.parse_args()
    options.parts = [name for name in names if name in options.parts]
    options.tokens = options.tokens or (2_000 if options.quick else 400_000)
    options.seeds = options.seeds or (1 if options.quick else 3)
    options.processes = options.processes or len(os.sched_getaffinity(0))
    if options.points is None and options.out is not None:
        options.points = options.out.with_suffix(".losses")
    return options


if __name__ == "__main__":
    sys.exit(main())
