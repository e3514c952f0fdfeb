"""`tuner transfer --verify`: does the best learning rate stay from the proxy to larger models?"""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tuner.commands.output import consoles, home_option
from tuner.errors import TunerError
from tuner.home.home import Home
from tuner.results.bowls import Estimate
from tuner.results.result import SearchResult
from tuner.space.settings import Proxy, target_text
from tuner.texts.formatting import clock, counted

if TYPE_CHECKING:
    from tuner.transfer.sweep import Size, Sweep, Winner
    from tuner.transfer.verdict import Optimum, TransferVerdict


def verify(
    options: argparse.Namespace, result: SearchResult, proxy: Proxy, home: Home, output: Path
) -> dict[str, Any]:
    """Train the sweeps, print the verdict and draw it; return it for --json."""
    from tuner.transfer.picture import draw_sweeps
    from tuner.transfer.target import write_factor
    from tuner.transfer.verdict import judge

    if options.device != "cpu":
        raise TunerError("--verify trains on CPUs, a trial for each core; leave out --device")
    if result.best.spec.init_from is not None:
        raise TunerError("--verify needs trials that start from random weights")
    sweeps = _sweeps(options, result, home)
    verdict = judge(sweeps, -math.log2(proxy.width if proxy.width < 1 else proxy.depth))
    target = target_text(result.best.spec.architecture)
    about = f"best learning rate on the way to {target}"
    draw_sweeps(sweeps, output, result.name, about)
    _print(options, result, sweeps, verdict, f"{result.name}: {about}")
    write_factor(home.search(result.name), verdict.factor)
    results, _ = consoles(options)
    results.write_line(f"wrote {output}")
    return _as_json(sweeps, verdict) | {"picture": str(output)}


def _sweeps(options: argparse.Namespace, result: SearchResult, home: Home) -> list[Sweep]:
    """Train the sweeps, on all cores."""
    from model.corpus.prepare import prepare
    from model.parallel import processes_for
    from model.progress import Progress
    from tuner.space.conflicts import context_lengths
    from tuner.space.data_facts import DataFacts
    from tuner.terminal.progress import show_progress
    from tuner.trained.moved_data import present_space
    from tuner.transfer.sweep import Trainer, Winner, measure, sizes_of

    _, progress = consoles(options)
    space, seeds = present_space(result.space, home), options.seeds or 2
    with show_progress(progress) as on_progress:
        corpus = prepare(space.data, space.tokenizer, home.corpora, on_progress=on_progress)
        facts = DataFacts.of(corpus, context_lengths(space, corpus.vocab_size))
        winner = Winner(space, result.best.draw, facts)
        try:
            sizes = sizes_of(winner)
        except ValueError as error:
            raise TunerError(f"{result.name}: {error}") from error
        processes = processes_for(None)
        progress.print(_cost(winner, result, sizes, seeds, processes))

        def on_trained(text: str, number: int, count: int) -> None:
            on_progress(Progress(text, number, count, "trials"))

        folder = home.search(result.name)
        folder.mkdir(parents=True, exist_ok=True)
        trainer = Trainer(home.corpora, folder / "transfer.jsonl", processes, on_trained)
        return measure(winner, sizes, trainer, seeds=seeds)


def _print(
    options: argparse.Namespace,
    result: SearchResult,
    sweeps: Sequence[Sweep],
    verdict: TransferVerdict,
    title: str,
) -> None:
    results, _ = consoles(options)
    rows = []
    for move in (verdict.move, verdict.control):
        own = [sweep for sweep in sweeps if sweep.kind == move.kind]
        rows += [_row(sweep, best) for sweep, best in zip(own, move.optima, strict=True)]
    columns = ["parametrization", "size", "best rate / winner's", "90 % interval", "val_loss"]
    results.table(title, columns, rows)
    results.print(verdict.sentence(_doublings(sweeps)))
    if verdict.control.octaves is not None:
        text = f"In the usual parametrization it moves by {verdict.control.octaves.text()} octaves."
        results.print(text)
    if verdict.word == "moves":
        command = f"tuner transfer {result.name} --train --rate-factor {verdict.factor:.3g}"
        command += home_option(options)
        results.write_line(f"{command} trains the target so.")


def _doublings(sweeps: Sequence[Sweep]) -> float:
    sizes = [sweep.size.octaves for sweep in sweeps]
    return max(sizes) - min(sizes)


def _as_json(sweeps: Sequence[Sweep], verdict: TransferVerdict) -> dict[str, Any]:
    return {
        "verdict": verdict.word,
        "sentence": verdict.sentence(_doublings(sweeps)),
        "factor": verdict.factor,
        "moves": {
            move.kind: {
                name: None if value is None else [value.value, value.low, value.high]
                for name, value in (
                    ("octaves", move.octaves), ("exponent", move.exponent),
                    ("given_up", move.given_up),
                )
            }
            for move in (verdict.move, verdict.control)
        },
        "sweeps": [
            {
                "parametrization": sweep.kind, "size": sweep.size.text,
                "losses": {
                    f"{2**x:g}": [v if math.isfinite(v) else None for v in values]
                    for x, values in sweep.losses.items()
                },
            }
            for sweep in sweeps
        ],
    }  # fmt: skip


def _cost(
    winner: Winner, result: SearchResult, sizes: Sequence[Size], seeds: int, processes: int
) -> str:
    """Return what the measurement costs at least, beside the search."""
    from tuner.transfer.sweep import KINDS, OFFSETS

    specs = [winner.spec("scaled", size, 0, 0) for size in sizes]
    each = len(KINDS) * len(OFFSETS) * seeds
    tokens = each * sum(spec.budget_tokens for spec in specs)
    flops = each * sum(spec.budget_tokens * spec.architecture.flops_per_token for spec in specs)
    searched = sum(t.flops(t.tokens_trained) for t in result.trials)
    times = f", {flops / searched:.1f} times the operations of the search" if searched else ""
    if searched and result.wall_seconds:  # larger products are faster, so that it is an upper end
        expected = clock(result.wall_seconds * flops / searched)
        times += f", {expected} at its speed or less"
    return (
        f"at least {counted(each * len(sizes), 'trial')} of {', '.join(s.text for s in sizes)} on "
        f"{counted(processes, 'core')}: {tokens:,} tokens{times}; what was trained is kept"
    )


def _row(sweep: Sweep, best: Optimum | None) -> list[str]:
    if best is None:
        return [sweep.kind, sweep.size.text, "none", "", ""]
    rate = Estimate.of(best.octaves, best.draws)
    value, low, high = (f"{2**octaves:.2f}" for octaves in (rate.value, rate.low, rate.high))
    return [sweep.kind, sweep.size.text, value, f"{low} … {high}", f"{best.loss:.4f}"]
