"""Deletes a search: its runs in MLflow, its folders, its folder in the storage.

Versions of registered models stay, unless they shall be deleted too: they have files of their own.
A deletion that was interrupted can be repeated. The folder is deleted last.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tuner.errors import JournalError, JournalInUse, RecordError, TunerError
from tuner.home.home import Home
from tuner.home.names import check_name
from tuner.housekeeping.sizes import remove, size_of
from tuner.journal.journal import read_search
from tuner.lease.folder import locked
from tuner.storage.storage import Storage
from tuner.texts.formatting import counted, listed
from tuner.tracking.record import Record
from tuner.tracking.records import SearchRecord
from tuner.tracking.store import store_errors

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

_CHAMPION = "champion"
_PAGE = 1000


@dataclass(frozen=True)
class Deletion:
    """What the deletion of a search deletes and keeps.

    Attributes:
        search: name of the search.
        runs: MLflow runs: of the search and of its trials.
        models: ids of the logged models of these runs that no kept version needs.
        deleted_versions: versions of registered models that are deleted, as `lm version 2`.
        kept_versions: versions of registered models that remain.
        folders: folders that are deleted, the folder of the search last.
        bytes: size of the folders.
        is_remote: True if the store is a server, which keeps the files of deleted runs until
            `mlflow gc` runs there.
        storage: URL of the search in `engine.storage`; None without one.
    """

    search: str
    runs: tuple[str, ...]
    models: tuple[str, ...]
    deleted_versions: tuple[tuple[str, str], ...]
    kept_versions: tuple[tuple[str, str], ...]
    folders: tuple[Path, ...]
    bytes: int
    is_remote: bool
    storage: str | None = None

    @property
    def description(self) -> str:
        """Text such as `the search lm-1: 7 runs and 2 folders`."""
        parts = [
            counted(len(self.runs), "run") if self.runs else "",
            counted(len(self.folders), "folder") if self.folders else "",
            "its folder in the storage" if self.storage else "",
            *map(version_text, self.deleted_versions),
        ]
        return f"the search {self.search}: {listed(filter(None, parts), 'and') or 'nothing'}"

    @property
    def as_json(self) -> dict[str, Any]:
        """The object of --json."""
        return {
            "search": self.search,
            "runs": self.runs,
            "deleted_versions": [version_text(v) for v in self.deleted_versions],
            "kept_versions": [version_text(v) for v in self.kept_versions],
            "folders": self.folders,
            "bytes": self.bytes,
            "storage": self.storage,
        }


def version_text(version: tuple[str, str]) -> str:
    """Return the name of a version for a user: `version 2 of lm`."""
    name, number = version
    return f"version {number} of {name}"


def delete_search(
    name: str, *, home: Home | None = None, force: bool = False, models: bool = False
) -> Deletion:
    """Delete a search for good.

    Args:
        name: name of the search, or the run id of its parent run.
        home: home of the search; by default ./runs.
        force: delete the search although the champion of its space comes from it, or although it
            is recorded as running elsewhere.
        models: delete the versions of registered models that come from the search, too.

    Returns:
        What was deleted, and what remains.

    Raises:
        RecordError: if there is no such search.
        JournalInUse: if the search is running.
        TunerError: if the champion comes from it, without `force` and `models`.
        StoreError: if the store or a folder cannot be changed.
    """
    home = home or Home.at()
    deletion = plan_deletion(name, home, force=force, models=models)
    carry_out(deletion, home)
    return deletion


def plan_deletion(name: str, home: Home, *, force: bool = False, models: bool = False) -> Deletion:
    """Return what `delete_search` would delete; it raises the same errors."""
    check_name(name)
    record = Record(home.tracking_uri)
    search = next((s for s in record.searches() if name in {s.name, s.run_id}), None)
    folder = _folder(home, search.name if search else name)
    if search is None and (folder is None or not folder.is_dir()):
        record.search(name)  # raises, and names the newest searches
    if folder is not None and folder.is_dir():
        with locked(folder):  # raises if the search is running
            pass
    elif search is not None and search.status == "running" and not force:
        raise JournalInUse(
            f"{search.name} is recorded as running, and its folder is not in {home.root}; stop it "
            "there, or give --force if it was killed"
        )
    runs = [] if search is None else [search.run_id, *(t.run_id for t in record.trials(search))]
    with store_errors(record.uri):
        versions = [] if search is None else _versions(record.client, search, runs)
        champions = [v for v in versions if _is_champion(record.client, v)]
        kept = [] if models else versions
        logged = [] if search is None else _logged_models(record.client, search, runs, kept)
    if champions and not force and not models:
        which = version_text(_key(champions[0]))
        raise TunerError(
            f"{which}, its champion, comes from {name}; give --models to delete the version too, "
            "or --force to keep the version without the search"
        )
    keys = tuple(map(_key, versions))
    artifacts = [home.artifacts / run for run in runs]
    artifacts += [home.artifacts / "models" / model for model in logged]
    folders = [path for path in (*artifacts, folder) if path is not None and path.exists()]
    return Deletion(
        search=search.name if search else name,
        runs=tuple(runs),
        models=tuple(logged),
        deleted_versions=keys if models else (),
        kept_versions=() if models else keys,
        folders=tuple(folders),
        bytes=sum(map(size_of, folders)),
        is_remote=not record.uri.startswith("sqlite:"),
        storage=_storage(folder),
    )


def carry_out(deletion: Deletion, home: Home) -> None:
    """Delete what `plan_deletion` returned.

    Raises:
        JournalInUse: if the search has been resumed meanwhile.
        StoreError: if the store or a folder cannot be changed.
        StorageError: if `engine.storage` cannot be changed.
    """
    record, folder = Record(home.tracking_uri), _folder(home, deletion.search)
    with _locked_if_there(folder):
        with store_errors(record.uri):
            _delete_versions(record.client, deletion)
            for model_id in deletion.models:
                record.client.delete_logged_model(model_id)
            for run_id in reversed(deletion.runs):  # the search last: until then it can be found
                record.client.delete_run(run_id)
        if deletion.storage is not None:
            Storage(deletion.storage).delete_folder()
        for path in deletion.folders:
            remove(path)
        if folder is not None:
            remove(home.log(folder.name))


@contextmanager
def _locked_if_there(folder: Path | None) -> Iterator[None]:
    if folder is None or not folder.is_dir():
        yield
    else:
        with locked(folder):
            yield


def _storage(folder: Path | None) -> str | None:
    """Return the URL of a search in the storage that its journal names."""
    search = None
    if folder is not None:
        with suppress(JournalError):  # a damaged journal can be deleted too
            search = read_search(folder)
    url = None if search is None else search.space.engine.storage
    return None if url is None or folder is None else f"{url}/{folder.name}"


def _folder(home: Home, name: str) -> Path | None:
    """Return the folder of a search; None if a record has a name that is none."""
    try:
        return home.search(check_name(name))
    except RecordError:
        return None


# MLflow --------------------------------------------------------------------------------------


def _versions(
    client: MlflowClient, search: SearchRecord, runs: Sequence[str]
) -> list[ModelVersion]:
    """Return the versions of the space's registered model that come from some runs."""
    space = client.get_experiment(search.experiment_id).name
    versions = client.search_model_versions(f"name = '{space}'")
    own = [version for version in versions if version.run_id in set(runs)]
    return sorted(own, key=lambda version: int(version.version))


def _key(version: ModelVersion) -> tuple[str, str]:
    return version.name, str(version.version)


def _is_champion(client: MlflowClient, version: ModelVersion) -> bool:
    aliases: Mapping[str, Any] = client.get_registered_model(version.name).aliases
    return str(aliases.get(_CHAMPION)) == str(version.version)


def _logged_models(
    client: MlflowClient, search: SearchRecord, runs: Sequence[str], kept: Sequence[ModelVersion]
) -> list[str]:
    """Return the ids of the logged models of some runs, without those of kept versions."""
    needed = {version.model_id for version in kept}
    sources = [str(version.source) for version in kept]
    own, token = set(runs), None
    found: list[str] = []
    while True:
        page = client.search_logged_models(
            [search.experiment_id], max_results=_PAGE, page_token=token
        )
        found += [
            model.model_id
            for model in page
            if model.source_run_id in own
            and model.model_id not in needed
            and not any(model.model_id in source for source in sources)
        ]
        token = page.token
        if not token:
            return found


def _delete_versions(client: MlflowClient, deletion: Deletion) -> None:
    """Delete versions, and models without any; mark the versions that outlive their search."""
    for name, number in deletion.deleted_versions:
        client.delete_model_version(name, number)
    for name in {name for name, _ in deletion.deleted_versions}:
        if not client.search_model_versions(f"name = '{name}'", max_results=1):
            client.delete_registered_model(name)
    for name, number in deletion.kept_versions:
        # a later search may get the name, and must not pass for the one that made this version
        client.set_model_version_tag(name, number, "search", f"{deletion.search} (deleted)")
