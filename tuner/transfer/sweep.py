"""Sweeps of the learning rate at three sizes between proxy and target, scaled and not scaled."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from model.parallel import ordered_map
from model.spec.data import DataConfig, TokenizerConfig
from model.spec.trial import TrialSpec
from tuner.space.data_facts import DataFacts
from tuner.space.parameter import Value
from tuner.space.settings import Proxy
from tuner.space.space import SearchSpace
from tuner.transfer.target import RATES

if TYPE_CHECKING:  # loads the tokenizer, which only processes that train need
    from model.corpus.corpus import Corpus

Kind = Literal["scaled", "standard"]
KINDS: tuple[Kind, ...] = ("scaled", "standard")
OFFSETS = (-2, -1, 0, 1, 2)  # octaves around the middle of a sweep
_MOST_STEPS = 3  # octaves by which a sweep grows at an end at which its lowest loss lies
SIZES = 3  # of a verification


@dataclass(frozen=True)
class Size:
    """One size of a sweep.

    Attributes:
        shares: shares of the target.
        octaves: log2 of the width over the smallest one's; of the depth, if no width differs.
        text: `d_model 64`, with the number of layers if it differs between sizes.
    """

    shares: Proxy
    octaves: float
    text: str


@dataclass(frozen=True)
class Sweep:
    """Final losses of one size, by learning rate.

    Attributes:
        kind: scaled, with the factors of a proxy; standard, the same model without them.
        size: the size.
        losses: log2 of the factor on the winner's rate → final loss of each seed, infinity if a
            trial diverged.
    """

    kind: Kind
    size: Size
    losses: Mapping[float, tuple[float, ...]]


@dataclass(frozen=True)
class Winner:
    """The winner of a search of proxies, which is trained at other sizes and rates.

    Attributes:
        space: space of the search.
        drawn: draw of the winner, whose learning rates sweeps multiply.
        facts: facts of the data.
    """

    space: SearchSpace
    drawn: Mapping[str, Value]
    facts: DataFacts

    def spec(self, kind: Kind, size: Size, octaves: float, seed: int) -> TrialSpec:
        """Return a trial of a sweep.

        Args:
            kind: standard leaves out the factors of the proxy.
            size: size of the model.
            octaves: log2 of the factor on the winner's learning rates.
            seed: seed of the trial.
        """
        spec = self.sized(size.shares, seed)
        h = spec.hyperparameters
        rates = {name: getattr(h, name) * 2.0**octaves for name in RATES}
        changes: dict[str, object] = {"hyperparameters": h.model_copy(update=rates)}
        if kind == "standard":
            changes["architecture"] = spec.architecture.model_copy(update={"target": None})
        return spec.model_copy(update=changes)

    def sized(self, shares: Proxy, seed: int = 0) -> TrialSpec:
        """Return the winner at other shares of its target.

        Raises:
            ValueError: if a share does not divide a size.
        """
        space = self.space.model_copy(update={"proxy": shares})
        return space.spec(self.drawn, self.facts, seed)


def sizes_of(winner: Winner) -> list[Size]:
    """Return three sizes on the way from the proxy to the target; the proxy is the first.

    Each is twice as large as the one before in every direction in which the proxy is smaller, or as
    large as the target; tokens and batch size follow in the same proportion, as far as they can.

    Raises:
        ValueError: if there are fewer than three such sizes.
    """
    proxy = winner.space.proxy
    assert proxy is not None
    found: list[Size] = []
    first: TrialSpec | None = None
    for step in range(12):
        shares = _grown(proxy, step)
        try:
            spec = winner.sized(shares)
        except ValueError:
            continue
        a, first = spec.architecture, first or spec
        b = first.architecture
        octaves = math.log2(a.d_model / b.d_model) or math.log2(a.n_layers / b.n_layers)
        if found and octaves <= found[-1].octaves:
            break  # the target
        text = f"d_model {a.d_model}" if proxy.width < 1 else ""
        if proxy.depth < 1:
            text += f"{', ' if text else ''}{a.n_layers} layers"
        found.append(Size(shares, octaves, text))
    if len(found) < SIZES:
        raise ValueError(
            f"there are only {len(found)} sizes from the proxy to the target, each twice the one "
            f"before, and the measurement needs {SIZES}; give proxy: a smaller width or depth"
        )
    return found[:SIZES]


def _grown(proxy: Proxy, step: int) -> Proxy:
    """Return the shares of a size that lies some doublings above the proxy."""
    main = proxy.width if proxy.width < 1 else proxy.depth
    share = min(1.0, main * 2**step)
    # how far the size is on the way to the target, on a log scale: 0 the proxy, 1 the target
    way = 1 - math.log(share) / math.log(main) if main < 1 else 1.0
    grown = {name: min(1.0, getattr(proxy, name) * 2**step) for name in ("width", "depth")}
    tokens = proxy.tokens ** (1 - way)
    return proxy.model_copy(
        update={
            **grown,
            "tokens": tokens,
            "tokens_rule": proxy.tokens_rule if tokens < 1 else "off",
        }
    )


def measure(
    winner: Winner, sizes: Sequence[Size], trainer: Trainer, *, seeds: int = 2
) -> list[Sweep]:
    """Train sweeps of both kinds at all sizes; a sweep grows until its lowest loss lies inside.

    Args:
        winner: its rate is the middle of the scaled sweeps.
        sizes: from `sizes_of`.
        trainer: trains, and remembers what was trained.
        seeds: seeds of each rate, the same for all.
    """
    found = []
    for kind in KINDS:
        # without factors the best rate of a small model lies between α and α/m
        shares = sizes[0].shares
        middle = 0.0 if kind == "scaled" else float(round(-math.log2(shares.width) / 2))
        for size in sizes:
            sweep = sweep_of(winner, kind, size, trainer, seeds, middle)
            found.append(sweep)
            if kind == "standard":  # the next optimum is sought where this one was
                means = _means(sweep.losses)
                middle = min(means, key=lambda x: means[x])
    return found


def sweep_of(
    winner: Winner, kind: Kind, size: Size, trainer: Trainer, seeds: int, middle: float
) -> Sweep:
    """Train the sweep of one kind and size; it grows until its lowest loss lies inside.

    Args:
        winner: the winner.
        kind: standard leaves out the factors of the proxy.
        size: size of the model.
        trainer: trains, and remembers what was trained.
        seeds: seeds of each rate.
        middle: log2 of the factor on the winner's rates in the middle.
    """
    losses: dict[float, tuple[float, ...]] = {}
    todo = [middle + offset for offset in OFFSETS]
    for _ in range(1 + 2 * _MOST_STEPS):
        specs = [winner.spec(kind, size, rate, seed) for rate in todo for seed in range(seeds)]
        values = trainer.losses(specs, f"{size.text}, {kind}")
        for index, rate in enumerate(todo):
            losses[rate] = tuple(values[index * seeds : (index + 1) * seeds])
        means = _means(losses)
        best, low, high = min(means, key=lambda x: means[x]), min(means), max(means)
        todo = [low - 1] if best == low else [high + 1] if best == high else []
        if not todo or abs(todo[0] - middle) > max(OFFSETS) + _MOST_STEPS:
            break
    return Sweep(kind, size, dict(sorted(losses.items())))


def _means(losses: Mapping[float, Sequence[float]]) -> dict[float, float]:
    return {rate: sum(values) / len(values) for rate, values in losses.items()}


class Trainer:
    """Trains trials in a process per core, and remembers their losses in a file.

    Args:
        corpora: folder of the prepared data.
        file: file of the losses, JSON lines; a trial that it has is not trained again.
        processes: number of processes.
        on_trained: called with a text, the number of trained trials and of all trials of a sweep.
    """

    def __init__(
        self,
        corpora: Path,
        file: Path,
        processes: int,
        on_trained: Callable[[str, int, int], None] = lambda text, number, count: None,
    ) -> None:
        self._corpora, self._file, self._processes = corpora, file, processes
        self._on_trained = on_trained
        self._known = dict(_read(file))
        if file.exists() and not file.read_bytes().endswith(b"\n"):
            with file.open("a", encoding="utf-8") as cut_off:
                cut_off.write("\n")

    def losses(self, specs: Sequence[TrialSpec], text: str) -> list[float]:
        """Return the final val_loss of trials; infinity for one that diverged."""
        missing = [spec for spec in specs if spec.hash not in self._known]
        jobs = [(spec.model_dump_json(), str(self._corpora)) for spec in missing]
        done = len(specs) - len(missing)
        for spec, loss in zip(missing, ordered_map(_train, jobs, self._processes), strict=True):
            self._known[spec.hash] = loss
            with self._file.open("a", encoding="utf-8") as file:
                line = {"hash": spec.hash, "val_loss": loss if math.isfinite(loss) else None}
                file.write(json.dumps(line) + "\n")
            done += 1
            self._on_trained(text, done, len(specs))
        return [self._known[spec.hash] for spec in specs]


def _read(file: Path) -> Iterator[tuple[str, float]]:
    """Yield hash and loss of the lines of a file; a last line that was cut off is left out."""
    if not file.exists():
        return
    for line in file.read_text(encoding="utf-8").splitlines():
        try:
            row = json.loads(line)
            yield row["hash"], math.inf if row["val_loss"] is None else row["val_loss"]
        except (ValueError, KeyError):
            continue


def _train(job: tuple[str, str]) -> float:
    """Train one trial, in a process of its own; return its final val_loss."""
    from model.engine.engine import Engine

    spec = TrialSpec.model_validate_json(job[0])
    corpus = _corpus(spec.data, spec.tokenizer, job[1])
    engine = Engine(*corpus.splits, choices=corpus.choices)
    *_, last = engine.run([spec])
    return last.val_loss if math.isfinite(last.val_loss) else math.inf


@cache
def _corpus(data: DataConfig, tokenizer: TokenizerConfig, corpora: str) -> Corpus:
    """Return the prepared data of trials."""
    from model.corpus.prepare import prepare

    return prepare(data, tokenizer, Path(corpora))
