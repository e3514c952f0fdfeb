"""Files that no search needs, among files that one does."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from model.engine.report import Report, Status
from model.files import hidden_name
from model.spec.trial import InitFrom, TrialSpec
from tests.conftest import MakeSpec
from tests.tuner.simulated_search import FACTS
from tests.tuner.tracking.recorded import ENVIRONMENT
from tuner.cli import main
from tuner.conductor.outcome import FINISHED
from tuner.home.home import Home
from tuner.home.private_folder import private_folder
from tuner.housekeeping.leftovers import clean, find_leftovers
from tuner.journal.events import (
    Event,
    Reported,
    SearchBegun,
    SessionBegun,
    SessionEnded,
    TrialBegun,
)
from tuner.journal.journal import Journal
from tuner.lease.folder import locked
from tuner.schedulers.scheduler import Decision
from tuner.space.space import SearchSpace
from tuner.tracking.record import Record
from tuner.tracking.runs import Runs, RunSettings, RunStart, TimedReport
from tuner.tracking.tags import CHECKPOINT_FILE

SPACE = SearchSpace(name="lm")
START = InitFrom(sha256="a" * 64)


@pytest.fixture
def home(
    tmp_path: Path,
    store: str,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path_factory: pytest.TempPathFactory,
) -> Home:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path_factory.mktemp("temporary")))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return Home(tmp_path, store)


def write(path: Path, text: str = "x" * 1000) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def corpus(home: Home, name: str, data: str, tokenizer: str = "tokenizer") -> None:
    meta = {"data_fingerprint": data, "tokenizer_fingerprint": tokenizer}
    write(home.corpora / name / "meta.json", json.dumps(meta))
    write(home.corpora / f".{name}.lock", "")


def search(home: Home, name: str, *events: Event) -> Path:
    """A search with prepared data, start weights, checkpoints and what Ray Tune left."""
    folder = home.search(name)
    with closing(Journal.open(folder)) as journal:
        for event in (SearchBegun(SPACE, "", replace(FACTS, init_from=START)), *events):
            journal.append(event)
    write(folder / "checkpoints" / "0" / "000000012.safetensors")
    write(folder / "tune" / "state.json")
    return folder


def recorded(home: Home) -> Runs:
    """The record of a search."""
    return Runs(RunSettings(home.tracking_uri, home.artifacts, "lm", "lm-1", {}))


def create(record: Runs, number: int, spec: TrialSpec) -> str:
    """Create the run of a trial, and describe it."""
    run = record.create(number, RunStart(spec, ENVIRONMENT, 1000))
    record.attach_spec(run, spec)
    record.log(run, [], spec)
    return run


def age(home: Home, *names: str) -> None:
    """Make all files of a home two hours old, or some of them."""
    then = time.time() - 7200
    for path in [home.root / name for name in names] or home.root.rglob("*"):
        os.utime(path, (then, then))


def found(home: Home, older_than: float | None = None) -> list[str]:
    items = find_leftovers(home, older_than).items
    return [item.path.relative_to(home.root).as_posix() for item in items]


def test_leftovers_of_an_unfinished_search_are_few(home: Home) -> None:
    """Its journal, checkpoints, data and start weights are what it resumes from."""
    search(home, "lm-1", SessionBegun(ENVIRONMENT, 1, in_order=True))
    corpus(home, "used", "data")
    write(home.starts / f"{START.sha256}.safetensors")
    write(home.starts / "tokenizer.tokenizer.json")
    write(home.corpora / "digests.json", "{}")
    age(home)
    assert found(home) == ["searches/lm-1/tune"]
    with locked(home.search("lm-1")):
        pass  # finding has released the lock


def test_leftovers_are_found_and_deleted(home: Home) -> None:
    search(home, "lm-1")
    corpus(home, "used", "data")
    corpus(home, "unused", "other data")
    corpus(home, "another", "data", "another tokenizer")
    write(home.corpora / "damaged" / "train.npy")
    write(home.corpora / ".building-1" / "shards" / "0.npz")
    write(home.starts / f"{'b' * 64}.safetensors")
    write(home.starts / "other.tokenizer.json")
    write(home.artifacts / ("0" * 32) / "artifacts" / "spec.json")
    write(home.artifacts / "mine" / "notes.txt")  # of the user
    write(home.root / ".new-1" / "mlflow.db")
    write(home.root / ".calibration.json.0123abcd")
    write(home.corpora / ".digests.json.0123abcd")
    write(home.starts / f".{'b' * 64}.safetensors.0123abcd")
    with closing(Journal.open(home.search("lm-2"))):
        pass  # killed before it began
    age(home)
    expected = [
        ".calibration.json.0123abcd", ".new-1", f"artifacts/{'0' * 32}", "corpora/.building-1",
        "corpora/.digests.json.0123abcd", "corpora/another",
        "corpora/damaged", "corpora/unused", "searches/lm-1/tune", "searches/lm-2",
        f"starts/.{'b' * 64}.safetensors.0123abcd", f"starts/{'b' * 64}.safetensors",
        "starts/other.tokenizer.json",
    ]  # fmt: skip
    assert found(home) == expected
    assert len(clean(home).items) == len(expected)
    assert found(home) == []
    assert (home.artifacts / "mine" / "notes.txt").exists()
    assert (home.search("lm-1") / "journal.jsonl").exists()
    assert (home.corpora / "used").exists()


def test_leftovers_of_killed_commands_are_found(home: Home, tmp_path: Path) -> None:
    """What a process was writing, an hour later; its temporary files as soon as it has died."""
    building = hidden_name(home.root)
    write(building / "mlflow.db")
    young = hidden_name(home.root)
    write(young / "mlflow.db")
    os.utime(building / "mlflow.db", (0, 0))
    os.utime(building, (0, 0))
    program = (
        "import os, signal, sys\nfrom pathlib import Path\n"
        "from tuner.home.private_folder import private_folder\n"
        "with private_folder(Path(sys.argv[1])) as folder:\n"
        "    (folder / 'mlflow.db').touch()\n    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    with private_folder() as living:
        subprocess.run([sys.executable, "-c", program, tempfile.gettempdir()], check=False)
        (died,) = set(Path(tempfile.gettempdir()).glob("tuner-*")) - {living}
        leftovers = clean(home)
        assert {item.path for item in leftovers.items} == {building, died}
        assert list(leftovers.kinds) == ["temporary files"]
        assert young.exists()
        assert living.exists()
        assert not building.exists()
        assert not died.exists()


def test_leftovers_are_at_least_an_hour_old(home: Home) -> None:
    corpus(home, "unused", "other data")
    assert found(home) == []
    age(home, "corpora/unused")
    assert found(home) == ["corpora/unused"]


def test_leftovers_are_not_in_use(home: Home) -> None:
    search(home, "lm-1")
    corpus(home, "unused", "other data")
    age(home)
    with locked(home.search("lm-1")), (home.corpora / ".unused.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert found(home) == []


def test_unreadable_journal_keeps_all_data(home: Home) -> None:
    """A journal of another version may need any data and any start."""
    write(home.search("lm-1") / "journal.jsonl", '{"event":"new","crc":"00000000"}\n{}\n')
    corpus(home, "unused", "other data")
    write(home.starts / f"{'b' * 64}.safetensors")
    age(home)
    leftovers = find_leftovers(home)
    assert leftovers.items == ()
    (note,) = leftovers.notes
    assert note.startswith("prepared data and start weights are left alone: ")


def test_resting_search_needs_only_what_cannot_be_made_again(home: Home) -> None:
    folder = search(home, "lm-1", SessionBegun(ENVIRONMENT, 1, in_order=True))
    corpus(home, "used", "data")
    write(home.starts / f"{START.sha256}.safetensors")
    write(home.starts / "tokenizer.tokenizer.json")
    age(home)
    time.sleep(0.01)
    few, more = ["searches/lm-1/tune"], ["corpora/used", "searches/lm-1/checkpoints"]
    assert found(home, older_than=3600) == few
    with locked(folder):
        assert found(home, older_than=0) == []
    search(home, "lm-2")  # another search uses the same data
    with locked(home.search("lm-2")):
        age(home)
        assert found(home, older_than=0) == [*more[1:], *few]
    shutil.rmtree(home.search("lm-2"))
    assert found(home, older_than=0) == [*more, *few]
    reasons = {item.reason for item in find_leftovers(home, 0).items}
    text = "states of an unfinished search with no event for 0 days; if it goes on, its paused"
    assert f"{text} trials begin again" in reasons
    clean(home, 0)
    assert (folder / "journal.jsonl").exists()
    assert (home.starts / f"{START.sha256}.safetensors").exists()


@pytest.mark.slow
def test_resting_search_keeps_the_weights_of_its_best_trial(
    home: Home, make_spec: MakeSpec
) -> None:
    search(home, "lm-1", *finished(make_spec))
    record = recorded(home)
    runs = [create(record, number, make_spec(seed=number)) for number in range(2)]
    for run in runs:
        write(home.artifacts / run / "artifacts" / CHECKPOINT_FILE)
    record.log_summary({}, runs[0], 5000)
    record.set_status(record.run_id, "finished", 5000)
    age(home)
    time.sleep(0.01)
    path = f"artifacts/{runs[1]}/artifacts/{CHECKPOINT_FILE}"
    assert path not in found(home)
    assert path in found(home, older_than=0)
    assert not any(runs[0] in item for item in found(home, older_than=0))


@pytest.mark.slow
def test_recorded_search_without_journal_keeps_its_data(home: Home, make_spec: MakeSpec) -> None:
    create(recorded(home), 0, make_spec())
    corpus(home, "used", "data")
    corpus(home, "unused", "other data")
    age(home)
    assert found(home) == ["corpora/unused"]
    # the files of active runs are no leftovers; those of deleted runs are
    (run,) = Record(home.tracking_uri).trials(Record(home.tracking_uri).search("lm-1"))
    Record(home.tracking_uri).client.delete_run(run.run_id)
    age(home)
    assert f"artifacts/{run.run_id}" in found(home)


def finished(make_spec: MakeSpec, kept: Sequence[int] = (0,)) -> list[Event]:
    report = Report("0", Status.FINISHED, 12, 384, 3.0, 3.1, 0.5, 0.01, checkpoint="0/12")
    return [
        SessionBegun(ENVIRONMENT, 1, in_order=True),
        TrialBegun(0, {}, make_spec()),
        Reported(0, report, Decision.STOP, FINISHED),
        SessionEnded("finished", best=0, kept=tuple(kept)),
    ]


@pytest.mark.slow
def test_checkpoints_wait_until_mlflow_has_the_kept_ones(
    home: Home, make_spec: MakeSpec, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """The store failed at the end of a search: 'tuner sync' sends the checkpoints later."""
    folder = search(home, "lm-1", *finished(make_spec))
    report = Report("0", Status.FINISHED, 12, 384, 3.0, 3.1, 0.5, 0.01)
    record = recorded(home)
    run = create(record, 0, make_spec())
    record.log(run, [TimedReport(report, 2000)], None, "finished")
    age(home)
    assert found(home) == found(home, older_than=0) == ["searches/lm-1/tune"]
    (note,) = find_leftovers(home, 0).notes
    assert note.startswith("the checkpoints of lm-1 are left alone: MLflow lacks the weights")
    assert "'tuner sync lm-1' sends them" in note
    kept = tmp_path_factory.mktemp("kept") / Path(CHECKPOINT_FILE).name
    shutil.copy(folder / "checkpoints" / "0" / "000000012.safetensors", kept)
    record.attach_checkpoint(run, kept, 384)
    age(home)
    assert found(home) == ["searches/lm-1/checkpoints", "searches/lm-1/tune"]


def test_clean_says_what_it_would_delete(home: Home, capsys: pytest.CaptureFixture[str]) -> None:
    corpus(home, "unused", "other data")
    age(home)
    for options in (["--dry-run"], []):  # nobody can be asked
        assert main(["clean", "--home", str(home.root), *options]) == 0
        out = capsys.readouterr().out
        assert "prepared data of no search" in out
        assert "would delete 1 leftover, 1 kB" in out
    assert main(["clean", "--home", str(home.root), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["deleted"] is False
    assert (home.corpora / "unused").exists()
    assert main(["clean", "--home", str(home.root), "--json", "--yes"]) == 0
    value = json.loads(capsys.readouterr().out)
    assert value["deleted"] is True
    assert value["kinds"] == {"prepared data": {"count": 1, "bytes": value["bytes"]}}
    assert [file["reason"] for file in value["files"]] == ["prepared data of no search"]
    assert not (home.corpora / "unused").exists()
    assert main(["clean", "--home", str(home.root)]) == 0
    assert "has no files that no search needs" in capsys.readouterr().out


def test_clean_sums_up_the_kinds_of_files_of_resting_searches(
    home: Home, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Compiled code lies in the cache of the user, for all homes."""
    search(home, "lm-1", SessionBegun(ENVIRONMENT, 1, in_order=True))
    corpus(home, "used", "data")
    corpus(home, "unused", "other data")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path.with_name("cache-of-user")))
    code = tmp_path.with_name("cache-of-user") / "tuner" / "compiled"
    old, young = write(code / "old.so"), write(code / "young.so")
    age(home)
    os.utime(old, (1.0, 1.0))
    time.sleep(0.01)
    options = ["clean", "--home", str(home.root), "--older-than", "0.01s", "--json"]
    assert main([*options[:-2], "1h", "--json"]) == 0
    value = json.loads(capsys.readouterr().out.splitlines()[-1])
    kernels = {"count": 1, "bytes": 1000}
    assert value["kinds"]["compiled kernels"] == kernels
    assert "checkpoints" not in value["kinds"]
    os.utime(young)
    assert main(options) == 0
    text = capsys.readouterr().out
    value = json.loads(text.splitlines()[-1])
    assert value["deleted"] is False
    counts = {kind: value["kinds"][kind]["count"] for kind in value["kinds"]}
    assert {kind: counts[kind] for kind in ("checkpoints", "prepared data")} == {
        "checkpoints": 1, "prepared data": 2,
    }  # fmt: skip
    assert value["bytes"] == sum(kind["bytes"] for kind in value["kinds"].values())
    assert main([*options, "--yes"]) == 0
    assert "checkpoints: 1, 1 kB" in capsys.readouterr().err
    assert not old.exists()
    assert not (home.search("lm-1") / "checkpoints").exists()


@pytest.mark.parametrize("age_", ["soon", "-1", "0", "30x", ""])
def test_bad_age_is_one_sentence(age_: str, home: Home, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["clean", "--home", str(home.root), f"--older-than={age_}"])
    assert caught.value.code == 2
    assert "--older-than: must be a" in capsys.readouterr().err
