"""A search as a user runs it, on a small corpus, once for all end-to-end tests."""

from __future__ import annotations

import random
import shutil
import signal
import subprocess
import sys
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from tests.browser import browser as browser
from tests.e2e.command_process import OWN_PROCESS, Run, plain_environment, run_command
from tuner.driver.sync import sync
from tuner.home.home import Home
from tuner.journal.events import MessageSent, Reported, SessionEnded, TrialBegun, WorkersChanged
from tuner.journal.journal import Journal, read_journal

SPACE = """\
name: small
data: {files: texts, validation_fraction: 0.2}
tokenizer: {vocab_size: 300}
model: {d_model: 16, n_layers: 1, n_heads: 2, context_length: 16, d_ff: 32}
hyperparameters:
  α_max: {log: [1e-3, 1e-1]}
  T_warmup: {fraction_of: T_total, uniform: [0.0, 0.2]}
  B: {choice: [4, 8]}
budget: {tokens: 12000, reports: 9, validation_tokens: 1024}
search: {trials: 6, seed: 1}
confirm: {top: 2, seeds: 2}
"""


def _hear_signals() -> None:
    """A background job of a shell ignores SIGINT and `nohup` SIGHUP, and so do their children."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


@dataclass(frozen=True)
class Workplace:
    """A folder with a space, texts, and a home of searches; its store may be elsewhere."""

    folder: Path
    tracking_uri: str | None = None

    @property
    def home(self) -> Path:
        return self.folder / "runs"

    @property
    def environment(self) -> dict[str, str]:
        """The environment of its commands."""
        store = {} if self.tracking_uri is None else {"MLFLOW_TRACKING_URI": self.tracking_uri}
        return {**plain_environment(), **store, "COLUMNS": "160"}

    def tuner(self, *arguments: str, timeout: float = 300) -> Run:
        """Run the command line in this folder, if it can in the shared process."""
        if arguments[0] not in OWN_PROCESS:
            return run_command(arguments, self.folder, self.environment, timeout)
        return self.fresh(*arguments, timeout=timeout)

    def refused(self, *arguments: str) -> Run:
        """Run a command that must be refused before Ray starts, in the shared process."""
        run = run_command(arguments, self.folder, self.environment)
        assert run.status == 2, run.err
        return run

    def fresh(self, *arguments: str, timeout: float = 300) -> Run:
        """Run the command line in this folder, in a new process."""
        with self.start(*arguments, stdout=subprocess.PIPE) as process:
            try:
                out, err = process.communicate(timeout=timeout)
            except subprocess.TimeoutExpired:
                process.kill()
                raise
        return Run(process.returncode, out, err)

    def start(
        self, *arguments: str, stdout: int = subprocess.DEVNULL, on_ray: bool = True
    ) -> subprocess.Popen[str]:
        """The same without waiting for it; its environment is not what other tests made of ours."""
        tuner = (
            ("-m", "tuner") if on_ray else (str(Path(__file__).with_name("threads_for_ray.py")),)
        )
        return subprocess.Popen(
            [sys.executable, *tuner, *arguments],
            cwd=self.folder,
            env=self.environment,
            stdout=stdout,
            stderr=subprocess.PIPE,
            text=True,
            preexec_fn=_hear_signals,
        )


def make_workplace(folder: Path, tracking_uri: str | None = None) -> Workplace:
    """Texts that repeat phrases, so that there is something to learn."""
    (folder / "small.yaml").write_text(SPACE, encoding="utf-8")
    (folder / "texts").mkdir()
    phrases = "the quick fox|jumps over|a lazy dog|and runs|into the old wood|by night".split("|")
    draw = random.Random(0)
    for number in range(20):
        words = (draw.choice(phrases) for _ in range(150))
        (folder / "texts" / f"{number:02d}.txt").write_text(", ".join(words), encoding="utf-8")
    return Workplace(folder, tracking_uri)


def journal_lines(home: Path, name: str) -> list[str]:
    """What the journal of a search says of its trials, without times and places, as text."""
    lines = []
    for event in read_journal(home / "searches" / name):
        if isinstance(event, Reported):
            event = replace(event, report=replace(event.report, checkpoint=None))
        if isinstance(event, TrialBegun):  # an earlier search of the home may have an equal trial
            event = replace(event, is_reused=False)
        if not isinstance(event, SessionEnded | WorkersChanged | MessageSent):
            lines.append(repr(replace(event, time_ms=0)))
    return lines


@pytest.fixture(scope="session")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Workplace:
    """A place that the tests share; its newest search is `searched`."""
    return make_workplace(tmp_path_factory.mktemp("e2e"))


def run_search(workplace: Workplace) -> Run:
    """The search, done."""
    run = workplace.fresh("search", "--space", "small.yaml", "--workers", "2", "--json")
    assert run.status == 0, run.err
    return run


@pytest.fixture(scope="session")
def golden(
    workplace: Workplace, searched: Run, tmp_path_factory: pytest.TempPathFactory
) -> Workplace:
    """A copy of the place, with another search whose driver was ended early: `cut-1`."""
    place = Workplace(tmp_path_factory.mktemp("golden") / "place")
    shutil.copytree(workplace.folder, place.folder)
    home = Home.at(place.home)
    events = read_journal(home.search("small-1"))
    with closing(Journal.open(home.search("cut-1"))) as journal:
        for event in (*events[: len(events) // 2], SessionEnded("interrupted")):
            journal.append(event)
    sync(home, "cut-1")
    return place


@pytest.fixture(scope="session")
def searched(workplace: Workplace) -> Run:
    """The search of the place that the tests share."""
    return run_search(workplace)
