"""Searches that are deleted: their runs, files, copies and registered models."""

from __future__ import annotations

import json
from contextlib import closing
from pathlib import Path

import pytest

from tests.conftest import MakeSpec
from tests.tuner.tracking.recorded import SPACE, Begin, report
from tuner.cli import main
from tuner.errors import JournalInUse, RecordError, TunerError
from tuner.home.home import Home
from tuner.housekeeping.deletion import delete_search, plan_deletion
from tuner.journal.events import SearchEdited
from tuner.journal.journal import Journal
from tuner.lease.folder import locked
from tuner.storage.storage import Storage
from tuner.tracking.record import Record
from tuner.tracking.runs import Runs, RunSettings


@pytest.fixture
def home(
    tmp_path: Path, store: str, begin_search: Begin, make_spec: MakeSpec,
    monkeypatch: pytest.MonkeyPatch,
) -> Home:  # fmt: skip
    """A home with the searches lm-1 and lm-2, each with two trials, and one version of a model."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    home = Home(tmp_path, store)
    for name in ("lm-1", "lm-2"):
        search = begin_search(name)
        for number in range(2):
            search.trial(number, make_spec(seed=number), report(4, 2.0), outcome="finished")
        search.finish()
    record = Record(store)
    best = record.trials(record.search("lm-1"))[0]
    experiment = record.search("lm-1").experiment_id
    logged = record.client.create_logged_model(experiment, "lm", source_run_id=best.run_id)
    Path(tmp_path, "artifacts", "models", logged.model_id).mkdir(parents=True, exist_ok=True)
    record.client.create_registered_model("lm")
    record.client.create_model_version(
        "lm", logged.artifact_location, best.run_id, tags={"search": "lm-1"},
        model_id=logged.model_id,
    )  # fmt: skip
    return home


def registered(home: Home) -> list[tuple[str, str]]:
    client = Record(home.tracking_uri).client
    return [(str(v.version), v.tags["search"]) for v in client.search_model_versions("name = 'lm'")]


def champion(home: Home) -> None:
    Record(home.tracking_uri).client.set_registered_model_alias("lm", "champion", "1")


@pytest.mark.slow
def test_deletion_leaves_nothing_of_a_search_but_its_version(home: Home) -> None:
    record = Record(home.tracking_uri)
    runs = [t.run_id for t in record.trials(record.search("lm-1"))]
    kept = [record.search("lm-2").run_id, *(t.run_id for t in record.trials(record.search("lm-2")))]
    deletion = delete_search("lm-1", home=home)
    assert set(deletion.runs) >= set(runs)
    assert [search.name for search in record.searches()] == ["lm-2"]
    assert not home.search("lm-1").exists()
    assert {path.name for path in home.artifacts.iterdir()} - {"models"} <= set(kept)
    assert deletion.kept_versions == (("lm", "1"),)
    # a later search lm-1 must not pass for the one that made the version
    assert registered(home) == [("1", "lm-1 (deleted)")]
    (model,) = (home.artifacts / "models").iterdir()
    assert record.client.get_logged_model(model.name)
    with pytest.raises(RecordError, match="no search is called lm-1"):
        plan_deletion("lm-1", home)


@pytest.mark.slow
def test_deletion_includes_the_storage(home: Home, tmp_path: Path) -> None:
    """Else the same name would bring the search back."""
    url = f"file://{tmp_path}/bucket"
    for name in ("lm-1", "lm-2"):
        Storage(url).write(f"{name}/journal/0001/00000001.jsonl", b"")
    engine = SPACE.engine.model_copy(update={"storage": url})
    with closing(Journal.open(home.search("lm-1"))) as journal:
        journal.append(SearchEdited(SPACE.model_copy(update={"engine": engine}), ""))
    plan = plan_deletion("lm-1", home)
    assert plan.description.endswith("and its folder in the storage")
    assert plan.as_json["storage"] == f"{url}/lm-1"
    delete_search("lm-1", home=home)
    assert Storage(url).names() == ["lm-2"]


@pytest.mark.slow
def test_deletion_with_models_deletes_the_registered_model(home: Home) -> None:
    champion(home)
    deletion = delete_search("lm-1", home=home, models=True)
    assert deletion.deleted_versions == (("lm", "1"),)
    assert Record(home.tracking_uri).client.search_registered_models() == []
    assert list((home.artifacts / "models").iterdir()) == []


@pytest.mark.slow
def test_deletion_spares_the_search_of_the_champion(home: Home) -> None:
    champion(home)
    with pytest.raises(TunerError, match="version 1 of lm, its champion, comes from lm-1"):
        delete_search("lm-1", home=home)
    assert home.search("lm-1").is_dir()
    assert delete_search("lm-1", home=home, force=True).kept_versions == (("lm", "1"),)
    assert [version for version, _ in registered(home)] == ["1"]


@pytest.mark.slow
def test_deletion_spares_running_searches(home: Home) -> None:
    with locked(home.search("lm-2")), pytest.raises(JournalInUse, match="lm-2 is being run"):
        delete_search("lm-2", home=home, force=True)
    assert home.search("lm-2").is_dir()


@pytest.mark.slow
def test_interrupted_deletion_can_be_repeated(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(path: Path) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("tuner.housekeeping.deletion.remove", fail)
        with pytest.raises(KeyboardInterrupt):
            delete_search("lm-2", home=home)
    assert home.search("lm-2").is_dir()
    assert delete_search("lm-2", home=home).runs == ()
    assert not home.search("lm-2").exists()


@pytest.mark.slow
def test_deletion_does_not_follow_a_name_that_is_a_path(home: Home) -> None:
    """An earlier version recorded a search under the path with which another was resumed."""
    Runs(RunSettings(home.tracking_uri, home.artifacts, "lm", "../searches/lm-2", {}))
    run = next(s for s in Record(home.tracking_uri).searches() if "/" in s.name).run_id
    with pytest.raises(JournalInUse, match="recorded as running, and its folder is not in"):
        delete_search(run, home=home)
    delete_search(run, home=home, force=True)
    assert home.search("lm-2").is_dir()
    assert [s.name for s in Record(home.tracking_uri).searches()] == ["lm-2", "lm-1"]


@pytest.mark.slow
def test_delete_asks(home: Home, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["delete", "lm-2", "--home", str(home.root)]
    assert main(arguments) == 2
    assert "give --yes to delete" in capsys.readouterr().err
    assert home.search("lm-2").is_dir()
    assert main([*arguments, "--yes", "--json"]) == 0
    value = json.loads(capsys.readouterr().out)
    assert value["search"] == "lm-2"
    assert len(value["runs"]) == 3
    assert not home.search("lm-2").exists()
    assert main(arguments) == 2
    assert "no search is called lm-2" in capsys.readouterr().err
