"""What the run of a search has beside its trials: files for a replay, its end, kept checkpoints."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from model.corpus.corpus import Corpus
from model.errors import CheckpointError
from tuner.conductor.trial import Trial
from tuner.journal.events import SessionEnded
from tuner.journal.fold import JournaledTrial, Search
from tuner.journal.journal import JOURNAL_FILE
from tuner.storage.states import CHECKPOINTS, TOKENIZER_FILE, present_state
from tuner.storage.storage import Storage
from tuner.tracking.progress import final_tags
from tuner.tracking.runs import Runs
from tuner.tracking.tags import (
    CHECKPOINT_FILE,
    DATA_FILE,
    SPACE_FILE,
    START_FOLDER,
    Tag,
)


@dataclass(frozen=True)
class SearchFiles:
    """Files of a search that its record gets copies of.

    Attributes:
        folder: folder of the journal and the checkpoints.
        starts: folder of the weights that warm-started trials start from.
        corpus: returns the prepared data of the search; None if the home has them no more.
        is_old: True if a checkpoint may be damaged since it was written: it is read before it is
            sent. A driver trusts what its workers wrote, and needs no torch.
    """

    folder: Path
    starts: Path
    corpus: Callable[[Search], Corpus | None]
    is_old: bool = False


class ParentRun:
    """Writes to the run of a search what is missing there; each call writes at once or raises.

    Args:
        runs: runs of the search.
        files: files of the search.

    Attributes:
        sent: names of the files that were attached.
        num_ends: ends of the search that were written.
    """

    def __init__(self, runs: Runs, files: SearchFiles) -> None:
        self._runs, self._files = runs, files
        self._sizes: dict[str, int] | None = None  # of the attached files, by name
        self._kept: dict[int, int] = {}  # trial → tokens of its attached checkpoint
        self._end: SessionEnded | None = None  # that the run shows
        previous = runs.previous
        self._digest = None if previous is None else previous.tags.get(Tag.JOURNAL)
        self.sent: list[str] = []
        self.num_ends = 0

    def send_inputs(self, search: Search) -> None:
        """Attach the space, and what a replay needs: tokenizer, digests of the data, the start."""
        sizes = self._attached()
        text = search.space_text
        if text and sizes.get(SPACE_FILE) != len(text.encode()):
            self._runs.attach_text(text, SPACE_FILE)
            self._note(SPACE_FILE, len(text.encode()))
        if TOKENIZER_FILE in sizes or (corpus := self._files.corpus(search)) is None:
            return
        self._runs.attach_text(json.dumps(corpus.files, indent=1), DATA_FILE)
        # the base of LoRA trials may be large, and is somebody's model: a replay proves its digest
        if search.facts.init_from is not None and not search.space.is_lora:
            from model.checkpoints.warm_start import start_path  # imports torch

            start = start_path(self._files.starts, search.facts.init_from)
            self._runs.attach(start, START_FOLDER)
        with TemporaryDirectory() as folder:
            (tokenizer,) = corpus.tokenizer.save(folder, "huggingface")
            self._runs.attach(tokenizer, None)
            self._note(TOKENIZER_FILE, tokenizer.stat().st_size)

    def send_running(self, time_ms: int) -> None:
        """Say that the search runs again."""
        self._runs.set_status(self._runs.run_id, "running", time_ms)
        self._end = None

    def send_end(
        self, search: Search, end: SessionEnded, digest: str, run_of: Mapping[int, str]
    ) -> None:
        """Write the end of a session, then attach the journal and the kept checkpoints.

        Args:
            search: the search at the end of the session.
            end: its end.
            digest: digest of the journal up to the end.
            run_of: trial → its run; all trials are complete.
        """
        if self._end is not end and not self._has_end(search, end, run_of):
            best_run = None if end.best is None else run_of.get(end.best)
            tags = _tags_of(search, end)
            self._runs.log_summary(end.summary, best_run, end.time_ms, tags)
            self._runs.set_status(self._runs.run_id, end.status, end.time_ms)
            self.num_ends += 1
        self._end = end
        self.send_journal(digest)
        for number in end.kept:
            self._send_checkpoint(search.trials[number], run_of[number], search)

    def send_journal(self, digest: str) -> None:
        """Attach a copy of the journal."""
        path = self._files.folder / JOURNAL_FILE
        is_attached = self._attached().get(JOURNAL_FILE) == path.stat().st_size
        if not is_attached or self._digest != digest:  # a kill may come between file and digest
            self._runs.attach(path, None, {Tag.JOURNAL: digest})
            self._note(JOURNAL_FILE, path.stat().st_size)
            self._digest = digest

    def _has_end(self, search: Search, end: SessionEnded, run_of: Mapping[int, str]) -> bool:
        """Return True if an earlier driver has written this end."""
        stored = self._runs.previous
        best_run = None if end.best is None else run_of.get(end.best)
        return (
            stored is not None
            and stored.status == end.status
            and end.summary.items() <= stored.metrics.items()
            and _tags_of(search, end).items() <= stored.tags.items()
            and best_run in {None, stored.best_run}
        )

    def _send_checkpoint(self, journaled: JournaledTrial, run_id: str, search: Search) -> None:
        trial = journaled.trial
        path = self._checkpoint(journaled, search)
        if path is None or self._kept.get(trial.number) == trial.tokens:
            return
        if self._runs.previous is not None:
            stored = self._runs.record.trial(run_id).checkpoint_tokens
            self._kept[trial.number] = -1 if stored is None else stored
        if self._kept.get(trial.number) != trial.tokens:
            with TemporaryDirectory() as folder:
                # MLflow names an artifact like the file, so that the file needs the name
                link = Path(folder, Path(CHECKPOINT_FILE).name)
                link.symlink_to(path.resolve())
                self._runs.attach_checkpoint(run_id, link, trial.tokens)
            self._kept[trial.number] = trial.tokens
            self.sent.append(f"the checkpoint of trial {trial.number}")

    def _checkpoint(self, journaled: JournaledTrial, search: Search) -> Path | None:
        """Return the checkpoint of a trial's newest report; None if missing, damaged or replaced.

        The checkpoint of a worker on another node comes from storage.
        """
        from model.checkpoints.header import recorded_digest

        reported = _reported(journaled.trial)
        if reported is None:
            return None
        url = search.space.engine.storage
        storage = None if url is None else Storage(url).at(self._files.folder.name)
        path = present_state(reported, self._files.folder / CHECKPOINTS, storage)
        if path is None:
            return None
        try:
            is_kept = journaled.weights in {None, recorded_digest(path)}
            if self._files.is_old:
                from model.checkpoints import checkpoint  # imports torch

                is_kept &= checkpoint.read(path)[1]["step"] == journaled.trial.step
        except CheckpointError:
            return None
        return path if is_kept else None

    def _attached(self) -> dict[str, int]:
        if self._sizes is None:
            files = [] if self._runs.previous is None else self._runs.artifacts()
            self._sizes = {file.path: file.file_size or 0 for file in files}
        return self._sizes

    def _note(self, name: str, size: int) -> None:
        self._attached()[name] = size
        self.sent.append(name)


def _reported(trial: Trial) -> str | None:
    return trial.reports[-1].checkpoint if trial.reports else None


def _tags_of(search: Search, end: SessionEnded) -> dict[str, str]:
    """Return the tags of a search whose session has ended."""
    trials = max(search.space.search.trials, len(search.trials))
    ended = len(search.board.ended)
    return final_tags(end.status, end.best, end.summary, ended, trials)
