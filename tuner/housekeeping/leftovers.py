"""Finds and deletes files of a home that no search of it needs.

A kept search needs: its journal; its checkpoints until it has finished and MLflow has the kept
ones; the prepared data and the start weights of its trials, which a replay or a resume reads. Files
of the last hour are left alone, because another process may be about to use them.

A search that rests, which has had no event for longer than an age that the user gives, needs only
what cannot be made again: its journal, its record, the weights of its best trial.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from model.device.compiler import unused_code
from model.files import read_regular, unfinished
from tuner.errors import JournalError, JournalInUse
from tuner.home.home import Home, is_locked
from tuner.home.private_folder import abandoned
from tuner.housekeeping.sizes import remove, size_of
from tuner.journal.fold import Search
from tuner.journal.journal import read_search
from tuner.lease.folder import is_running, locked
from tuner.storage.states import TOKENIZER_FILE
from tuner.tracking.record import Record
from tuner.tracking.store import if_found, store_errors
from tuner.tracking.tags import CHECKPOINT_FILE

if TYPE_CHECKING:
    from mlflow import MlflowClient

_YOUNG_SECONDS = 3600
_RUN_ID = re.compile(r"[0-9a-f]{32}")
_BUILDING = ".building-"
_KINDS = {
    "checkpoints": "checkpoints", "corpora": "prepared data", "artifacts": "artifacts",
    "starts": "start weights", "tune": "files of Ray Tune",
}  # fmt: skip
_Found = Iterator[tuple[Path, str]]


@dataclass(frozen=True)
class Leftover:
    """Files that no search needs.

    Attributes:
        path: file or folder.
        reason: why it is not needed.
        bytes: its size.
        kind: of such files, for sums: checkpoints, prepared data, artifacts, …
    """

    path: Path
    reason: str
    bytes: int
    kind: str = "other files"


@dataclass(frozen=True)
class Leftovers:
    """Files of a home that no search needs, and what could not be judged.

    Attributes:
        items: the files, by path.
        notes: sentences about files that were left alone, and why.
    """

    items: tuple[Leftover, ...]
    notes: tuple[str, ...] = ()

    @property
    def bytes(self) -> int:
        """Size of all files."""
        return sum(item.bytes for item in self.items)

    @property
    def kinds(self) -> dict[str, tuple[int, int]]:
        """Number and bytes of the files of each kind, the largest first."""
        sums: dict[str, tuple[int, int]] = {}
        for item in self.items:
            count, size = sums.get(item.kind, (0, 0))
            sums[item.kind] = count + 1, size + item.bytes
        return dict(sorted(sums.items(), key=lambda entry: -entry[1][1]))


def clean(home: Home | None = None, older_than: float | None = None) -> Leftovers:
    """Delete the files of a home that no search needs.

    Args:
        home: the home; by default ./runs.
        older_than: as for `find_leftovers`.

    Returns:
        What was deleted.

    Raises:
        StoreError: if the tracking store cannot be read, or a file cannot be deleted.
    """
    home = home or Home.at()
    leftovers = find_leftovers(home, older_than)
    delete_leftovers(leftovers)
    return leftovers


def delete_leftovers(leftovers: Leftovers) -> None:
    """Delete files that `find_leftovers` returned.

    Raises:
        StoreError: if a file cannot be deleted.
    """
    for item in leftovers.items:
        remove(item.path)


def find_leftovers(home: Home, older_than: float | None = None) -> Leftovers:
    """Return the files of a home that no search needs, without deleting them.

    Args:
        home: the home.
        older_than: seconds without an event after which a search rests; None: none does.

    Raises:
        StoreError: if the tracking store cannot be read.
    """
    # listed before the store is read: what a search adds meanwhile is not among them
    artifacts = _listed(home.artifacts) + _listed(home.artifacts / "models")
    searches = _Searches(home, older_than)
    found = [
        *searches.leftovers(),
        *_weights(home, searches),
        *_corpora(home, searches),
        *_starts(home, searches),
        *_artifacts(home, searches.record, artifacts),
        *_kernels(older_than),
        *((path, "what a search that is gone has printed") for path in _logs(home)),
        *((path, "left by an interrupted start") for path in home.root.glob(".new-*")),
        *((path, "what was not written to its end") for path in _unfinished(home)),
    ]
    now = time.time()
    found = [each for each in found if now - each[0].lstat().st_mtime > _YOUNG_SECONDS]
    found += [(path, "temporary files of a process that has died") for path in abandoned()]
    items = [
        Leftover(path, reason, size_of(path), _kind(home, path)) for path, reason in set(found)
    ]
    return Leftovers(tuple(sorted(items, key=lambda item: item.path)), tuple(searches.notes))


def _kind(home: Home, path: Path) -> str:
    """Return the kind of a leftover by its place."""
    if not path.is_relative_to(home.root):
        is_temporary = path.name.startswith((".", "tuner-"))
        return "temporary files" if is_temporary else "compiled kernels"
    first = path.relative_to(home.root).parts[0]
    return _KINDS.get(path.name if first == "searches" else first, "other files")


def _kernels(older_than: float | None) -> _Found:
    """Yield compiled code that was not loaded for long; the searches of all homes share it."""
    if older_than is not None:
        for path in unused_code(older_than):
            yield path, "compiled code that no search has loaded for so long; it is compiled again"


def _unfinished(home: Home) -> Iterator[Path]:
    """Yield what killed processes were writing, beside what it should become."""
    yield from unfinished(home.root.parent, home.root.name)  # of `restore`
    predictions = home.root / "predictions"
    for folder in (home.root, home.corpora, home.starts, predictions, *home.searches()):
        yield from unfinished(folder)


def _logs(home: Home) -> Iterator[Path]:
    """Yield the logs of drivers whose search is not in the home."""
    for path in home.root.glob("logs/*.log"):
        if not (home.root / "searches" / path.stem).exists():
            yield path


def _listed(folder: Path) -> list[Path]:
    return sorted(folder.iterdir()) if folder.is_dir() else []


class _Searches:
    """The searches of a home: their folders, and what they need.

    Attributes:
        record: tracking store.
        notes: sentences about files that are left alone, and why.
        are_known: True if every journal could be read.
        data: (fingerprint of the data, fingerprint of the tokenizer) of each search that does not
            rest.
        tokenizers: fingerprints of the tokenizers of all searches.
        starts: SHA-256 of start weights that searches need.
        resting: searches that rest, as the store has them → how long, for people.
    """

    def __init__(self, home: Home, older_than: float | None) -> None:
        self.record = Record(home.tracking_uri)
        self.notes: list[str] = []
        self.are_known = True
        self.data: set[tuple[str, str]] = set()
        self.starts: set[str] = set()
        self.tokenizers: set[str] = set()
        self.resting: dict[str, str] = {}
        now = time.time()
        self._recorded = {search.name: search for search in self.record.searches()}
        self._journals: dict[Path, Search | None] = {}
        for folder in home.searches():
            try:
                search = read_search(folder)
            except JournalError as error:
                self.are_known = False
                self.notes.append(f"prepared data and start weights are left alone: {error}")
                continue
            self._journals[folder] = search
            if search is not None:
                facts, age = search.facts, now - search.newest_ms / 1000
                if older_than is not None and age > older_than and not is_running(folder):
                    self.resting[folder.name] = f"no event for {age / 86_400:.0f} days"
                    self.tokenizers.add(facts.tokenizer_fingerprint)
                else:
                    self.data.add((facts.data_fingerprint, facts.tokenizer_fingerprint))
                if facts.init_from is not None:
                    self.starts.add(facts.init_from.sha256)
        runs = {self._recorded[n].run_id for n in self.resting if n in self._recorded}
        self.data |= self.record.data_and_tokenizers(without=runs)
        self.tokenizers |= {tokenizer for _, tokenizer in self.data}

    def leftovers(self) -> _Found:
        """Yield files in the folders of searches that do not run."""
        for folder, search in self._journals.items():
            try:
                with locked(folder):
                    yield from self._of(folder, search)
            except (JournalInUse, JournalError):
                continue

    def _of(self, folder: Path, search: Search | None) -> _Found:
        if search is None:
            if folder.name not in self._recorded:
                yield folder, "a search that ended before it began"
            return
        tune, checkpoints = folder / "tune", folder / "checkpoints"
        if tune.exists():
            yield tune, "files of Ray Tune of a killed process"
        has_finished = search.end is not None and search.end.status == "finished"
        if not checkpoints.exists():
            return
        # what `sync` has yet to send is the only copy of the best weights
        has_kept = search.end is None or self._has_kept(folder, search)
        if has_finished and has_kept:
            yield checkpoints, "checkpoints of a finished search; MLflow has the kept ones"
        elif folder.name in self.resting and not has_kept:
            self.notes.append(
                f"the checkpoints of {folder.name} are left alone: MLflow lacks the weights of its "
                f"best trials; 'tuner sync {folder.name}' sends them"
            )
        elif folder.name in self.resting:
            yield (
                checkpoints,
                f"states of an unfinished search with {self.resting[folder.name]}; if it goes on, "
                "its paused trials begin again",
            )

    def spare_runs(self) -> Iterator[tuple[str, str]]:
        """Yield the runs of all trials but the best of searches that rest, and how long they do."""
        for name, text in self.resting.items():
            recorded = self._recorded.get(name)
            if recorded is not None and recorded.best_run is not None:
                for run in self.record.run_ids(recorded).values():
                    if run != recorded.best_run:
                        yield run, text

    def _has_kept(self, folder: Path, search: Search) -> bool:
        """Return True if MLflow has every checkpoint that a finished search keeps."""
        recorded = self._recorded.get(folder.name)
        if recorded is None or search.end is None:
            return False
        trials = {trial.number: trial for trial in self.record.trials(recorded)}
        reports = {n: t.last for n, t in search.board.trials.items()}
        return all(
            number in trials and trials[number].keeps_checkpoint
            for number in search.end.kept
            if (last := reports.get(number)) is not None and last.checkpoint is not None
        )


def _weights(home: Home, searches: _Searches) -> _Found:
    """Yield the kept weights of all trials but the best of searches that rest."""
    if not home.is_local:
        return
    for run, text in searches.spare_runs():
        path = home.artifacts / run / "artifacts" / CHECKPOINT_FILE
        if path.is_file():
            yield (
                path,
                f"weights of a trial beside the best, of a search with {text}; it is trained again "
                "when they are needed",
            )


def _corpora(home: Home, searches: _Searches) -> _Found:
    """Yield prepared data that no search uses, and what interrupted preparations left."""
    if not searches.are_known:
        return
    for folder in _listed(home.corpora):
        if not folder.is_dir() or folder.is_symlink():
            continue
        name = folder.name.removeprefix(_BUILDING)
        if is_locked(home.corpora / f".{name}.lock"):
            continue
        if folder.name.startswith(_BUILDING):
            yield folder, "an interrupted preparation of data"
        elif not folder.name.startswith(".") and _data_of(folder) not in searches.data:
            suffix = " but some without an event for so long" if searches.resting else ""
            yield folder, f"prepared data of no search{suffix}"


def _data_of(folder: Path) -> tuple[str, str]:
    """Return the fingerprints of the data and the tokenizer of a corpus; empty if it is damaged."""
    try:
        meta: dict[str, Any] = json.loads(read_regular(folder / "meta.json"))
        return str(meta["data_fingerprint"]), str(meta["tokenizer_fingerprint"])
    except (OSError, ValueError, KeyError, TypeError):
        return "", ""


def _starts(home: Home, searches: _Searches) -> _Found:
    """Yield start weights, and copies of tokenizers, that no search needs."""
    if not searches.are_known:
        return
    for path in _listed(home.starts):
        name = path.name
        if name.endswith(".safetensors") and path.stem not in searches.starts:
            yield path, "start weights of no search"
        elif name.endswith(f".{TOKENIZER_FILE}"):
            if name.removesuffix(f".{TOKENIZER_FILE}") not in searches.tokenizers:
                yield path, "tokenizer of no search"


def _artifacts(home: Home, record: Record, paths: Iterable[Path]) -> _Found:
    """Yield the files of runs and logged models that were deleted from the store of this home."""
    if not home.is_local:
        return
    registered = None
    for path in paths:
        if _RUN_ID.fullmatch(path.name):
            if not if_found(record.uri, partial(_is_active, record.client, path.name)):
                yield path, "files of a deleted run"
        elif path.name.startswith("m-") and path.parent.name == "models":
            if not if_found(record.uri, partial(record.client.get_logged_model, path.name)):
                registered = _sources(record) if registered is None else registered
                if not any(path.name in source for source in registered):
                    yield path, "files of a deleted model"


def _is_active(client: MlflowClient, run_id: str) -> bool:
    return str(client.get_run(run_id).info.lifecycle_stage) == "active"


def _sources(record: Record) -> list[str]:
    """Return the places of the files of all registered versions."""
    sources: list[str] = []
    token = None
    with store_errors(record.uri):
        while True:
            page = record.client.search_model_versions(page_token=token)
            sources += [str(version.source) for version in page]
            token = page.token
            if not token:
                return sources
