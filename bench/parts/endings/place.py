"""A folder with a tiny search, the command that begins it or goes on, and what a search decided."""

from __future__ import annotations

import os
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from parts.measuring import ROOT
from tuner.journal.events import Reported, SessionEnded, TrialBegun
from tuner.journal.journal import read_journal
from tuner.lease.folder import newest

SPACE = """\
name: small
data: {files: texts, validation_fraction: 0.2}
tokenizer: {vocab_size: 300}
model: {d_model: 16, n_layers: 1, n_heads: 2, context_length: 16, d_ff: 32}
hyperparameters:
  α_max: {log: [1e-3, 1e-1]}
  T_warmup: {fraction_of: T_total, uniform: [0.0, 0.2]}
  B: {choice: [4, 8]}
budget: {tokens: TOKENS, reports: 9, validation_tokens: 1024}
search: {trials: TRIALS, seed: 1}
engine: {workers: 1, slots: 2}
confirm: {top: 2, seeds: 2}
"""
PHRASES = "the quick fox|jumps over|a lazy dog|and runs|into the old wood|by night".split("|")
UNSHARE = ("unshare", "--pid", "--fork", "--mount-proc", "--kill-child")
POLL_SECONDS = 0.05
Story = list[tuple[Any, ...]]


@dataclass(frozen=True)
class Place:
    """A folder with the space and its texts.

    Attributes:
        folder: the folder.
        trials: number of trials of the search.
        tokens: budget of a trial.
    """

    folder: Path
    trials: int
    tokens: int

    def make(self) -> None:
        """Write the space and its texts, which depend on nothing else."""
        texts = self.folder / "texts"
        texts.mkdir(parents=True, exist_ok=True)
        space = SPACE.replace("TRIALS", str(self.trials)).replace("TOKENS", str(self.tokens))
        (self.folder / "small.yaml").write_text(space, encoding="utf-8")
        draw = random.Random(0)
        for number in range(20):
            words = ", ".join(draw.choice(PHRASES) for _ in range(150))
            (texts / f"{number:02d}.txt").write_text(words, encoding="utf-8")

    def home(self, name: str) -> Path:
        """Return the home of a search: its own, or an equal search would lend it its trials."""
        return self.folder / "homes" / name

    def searched(self, name: str) -> Path:
        """Return the folder of a search."""
        return self.home(name) / "searches" / name

    def start(
        self, name: str, wrapper: Sequence[str] = (), environment: Mapping[str, str] | None = None
    ) -> Driver:
        """Start the one command that begins a search or goes on with it."""
        search = ["search", "--space", "small.yaml", "--name", name, "--home", self.home(name)]
        command = [*wrapper, sys.executable, "-m", "tuner", *map(str, search)]
        plain = {k: v for k, v in os.environ.items() if not k.startswith(("RAY_", "MLFLOW"))}
        path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
        err = self.folder / f"{name}.err"
        with err.open("w", encoding="utf-8") as stream:
            process = subprocess.Popen(
                command, cwd=self.folder, stdout=subprocess.DEVNULL, stderr=stream,
                env={**plain, "PYTHONPATH": path, **(environment or {})},
                preexec_fn=_hear_signals,
            )  # fmt: skip
        return Driver(process, err, is_wrapped=bool(wrapper))

    def story(self, name: str) -> Story:
        """Return all that a search decided and measured, in order: trials, reports, winner."""
        events: Story = []
        for event in read_journal(self.searched(name)):
            if isinstance(event, TrialBegun):
                events.append(("trial", event.number, event.draw, event.spec))
            elif isinstance(event, Reported):
                numbers = (
                    "step", "status", "val_loss", "train_loss", "grad_norm", "learning_rate",
                )  # fmt: skip
                report = [getattr(event.report, number) for number in numbers]
                events.append(("report", event.number, *report))
            elif isinstance(event, SessionEnded) and event.status == "finished":
                events.append(("end", event.best))
        return events

    def count(self, name: str, kind: type) -> int:
        """Return how many events of a kind the journal of a search has."""
        return sum(isinstance(event, kind) for event in read_journal(self.searched(name)))

    def epoch(self, name: str) -> int:
        """Return the number of the newest driver of a search; 0 before the first."""
        holder = newest(self.searched(name))
        return holder.epoch if holder else 0


@dataclass
class Driver:
    """A driver that was started.

    Attributes:
        process: its process, or that of its wrapper.
        err: file of its standard error.
        is_wrapped: True if a wrapper runs it as a child.
        started: time of `time.monotonic` at which it started.
    """

    process: subprocess.Popen[bytes]
    err: Path
    is_wrapped: bool = False
    started: float = field(default_factory=time.monotonic)

    @property
    def seconds(self) -> float:
        """Seconds since its start."""
        return time.monotonic() - self.started

    @property
    def has_ended(self) -> bool:
        """True if it has ended."""
        return self.process.poll() is not None

    def send(self, number: int) -> None:
        """Send it a signal."""
        pids = [self.process.pid]
        if self.is_wrapped:
            task = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
            pids = [int(pid) for pid in task.read_text().split()]
        for pid in pids:
            os.kill(pid, number)

    def wait(self, seconds: float = 600.0) -> int:
        """Wait for its end; return its exit status.

        Raises:
            SystemExit: if it takes longer.
        """
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise SystemExit(f"a driver did not end:\n{self.said}") from None

    @property
    def said(self) -> str:
        """What it has printed on standard error."""
        return self.err.read_text(encoding="utf-8", errors="replace")

    def has_said(self, pattern: str) -> bool:
        """Return True if it has printed a text."""
        return re.search(pattern, self.said) is not None


def _hear_signals() -> None:
    """A background job of a shell ignores SIGINT and `nohup` SIGHUP, and so do their children."""
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
