"""Searches that run while something happens to their nodes, and what their journals say."""

from __future__ import annotations

import dataclasses
import random
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tuner.journal.events import Reported, SessionEnded, TrialBegun
from tuner.journal.journal import read_journal

SPACE = """\
name: cluster
data: {files: texts, validation_fraction: 0.2}
tokenizer: {vocab_size: 300}
model: {d_model: 16, n_layers: 1, n_heads: 2, context_length: 16, d_ff: 32}
hyperparameters:
  α_max: {log: [1e-3, 1e-1]}
  B: {choice: [4, 8]}
budget: {tokens: 12000, reports: 20, validation_tokens: 1024}
search: {trials: 6, seed: 1, sampler: random, scheduler: none}
confirm: off
engine: {device: cpu, dtype: float32, compile: off}
"""
_PHRASES = "the quick fox|jumps over|a lazy dog|and runs|into the old wood|by night".split("|")
SECONDS = 600.0  # longest wait for anything


def write_inputs(folder: Path) -> None:
    """Write the space, and texts with something to learn."""
    (folder / "cluster.yaml").write_text(SPACE, encoding="utf-8")
    (folder / "texts").mkdir()
    draw = random.Random(0)
    for number in range(20):
        words = (draw.choice(_PHRASES) for _ in range(150))
        (folder / "texts" / f"{number:02d}.txt").write_text(", ".join(words), encoding="utf-8")


def command(name: str, trials: int, tokens: int, workers: int, address: str = "local") -> list[str]:
    """Return the command of a search, to run in the folder of the inputs."""
    return [
        sys.executable, "-m", "tuner", "search", "--space", "cluster.yaml", "--home", "runs",
        "--name", name, "--fresh", "--trials", str(trials), "--workers", str(workers),
        "--set", f"budget.tokens={tokens}", "--address", address,
    ]  # fmt: skip


class RunningSearch:
    """A search that was started, and the lines of its progress.

    Args:
        process: its process; its standard error is read here.
        home: home of the search.
        name: name of the search.

    Attributes:
        lines: lines of its standard error so far, each with the Unix time at which it came.
    """

    def __init__(self, process: subprocess.Popen[str], home: Path, name: str) -> None:
        self.process, self.folder = process, home / "searches" / name
        self.began = time.time()
        self.lines: list[tuple[float, str]] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.lines.append((time.time(), line.rstrip()))

    def line(self, text: str) -> float:
        """Wait for a line; return its time."""
        until = time.monotonic() + SECONDS
        while True:
            for at, line in list(self.lines):
                if text in line:
                    return at
            self._check(until, f"the line '{text}'")

    def reports(self, number: int) -> None:
        """Wait until the search has so many reports."""
        until = time.monotonic() + SECONDS
        while len(reports(self.events)) < number:
            self._check(until, f"report {number}")

    def _check(self, until: float, what: str) -> None:
        if time.monotonic() > until or (self.process.poll() is not None and not self._alive()):
            text = "\n".join(line for _, line in self.lines[-40:])
            raise TimeoutError(f"{what} did not come:\n{text}")
        time.sleep(0.25)

    def _alive(self) -> bool:
        """Return True while lines may come."""
        self._reader.join(1.0)
        return self._reader.is_alive()

    @property
    def events(self) -> list[Any]:
        """The journal so far."""
        return self.events_of(self.folder)

    @staticmethod
    def events_of(folder: Path) -> list[Any]:
        """Return the journal of a search."""
        return read_journal(folder) if folder.is_dir() else []

    def finish(self) -> int:
        """Wait for the end; return the exit status."""
        status = self.process.wait(SECONDS)
        self._reader.join()
        return status


def reports(events: Sequence[Any]) -> list[Reported]:
    """Return the reports of a journal."""
    return [event for event in events if isinstance(event, Reported)]


@dataclass(frozen=True)
class Trained:
    """What the trials of a search are and reported, to the last bit.

    Attributes:
        trials: by number: specification, and all numbers of each report.
        weights: digests of the weights that were kept, by trial.
    """

    trials: dict[int, list[Any]]
    weights: dict[int, str]

    @classmethod
    def of(cls, events: Sequence[Any]) -> Trained:
        """Read a journal."""
        trials: dict[int, list[Any]] = {}
        weights: dict[int, str] = {}
        for event in events:
            if isinstance(event, TrialBegun):
                trials[event.number] = [event.spec]
            elif isinstance(event, Reported):
                values = dataclasses.asdict(event.report)
                values.pop("checkpoint")  # a path
                trials[event.number].append(values)
            elif isinstance(event, SessionEnded):
                weights = dict(event.weights)
        return cls(trials, weights)

    def num_equal(self, other: Trained) -> int:
        """Return the number of trials that are equal; all weights that both kept must be, too."""
        kept = self.weights.keys() & other.weights.keys()
        if any(self.weights[number] != other.weights[number] for number in kept):
            return 0
        return sum(other.trials.get(number) == trial for number, trial in self.trials.items())


def interval(events: Sequence[Any]) -> float:
    """Return the median time between two reports of a trial, in seconds."""
    last: dict[int, int] = {}
    gaps = []
    for event in reports(events):
        if event.number in last:
            gaps.append(event.time_ms - last[event.number])
        last[event.number] = event.time_ms
    return statistics.median(gaps) / 1000


def next_report_seconds(events: Sequence[Any], fault: float) -> float:
    """Return the seconds from a fault to the next report of the trial that waited longest for it.

    Args:
        events: journal of the search.
        fault: Unix time of the fault.
    """
    at = fault * 1000
    times: dict[int, list[int]] = {}
    for event in reports(events):
        times.setdefault(event.number, []).append(event.time_ms)
    under_way = [t for t in times.values() if t[0] <= at < t[-1]]
    return max(min(x for x in t if x > at) - at for t in under_way) / 1000


def tokens_per_second(events: Sequence[Any], begin: float, end: float) -> float:
    """Return the tokens trained between two Unix times, by second: those of the reports there."""
    tokens: dict[int, int] = {}
    trained = 0
    for event in reports(events):
        own = event.report.tokens - tokens.get(event.number, 0)
        tokens[event.number] = event.report.tokens
        if begin * 1000 < event.time_ms <= end * 1000:
            trained += own
    return trained / (end - begin)
