"""Tables of trials of other tools: what is read, and one sentence for each kind of bad input."""

from __future__ import annotations

import math
from pathlib import Path

import optuna
import pytest

from tuner.errors import TunerError
from tuner.home.home import Home
from tuner.knowledge import tables
from tuner.knowledge.library import collect
from tuner.knowledge.settings import SETTINGS
from tuner.knowledge.tables import read_table

TABLE = """\
α_max,B,optimizer,d_model,tokens,weights,val_loss,host
3e-3,16,adamw,64,1e6,98000,3.91,a
1e-2,8,,64,1000000,98000,inf,b
"""


def written(folder: Path, text: str) -> str:
    path = folder / "trials.csv"
    path.write_text(text, encoding="utf-8")
    return str(path)


def test_rows_have_python_names_and_types(tmp_path: Path) -> None:
    table = read_table(written(tmp_path, TABLE))
    first, second = table.rows
    assert first.parameters == {
        "max_learning_rate": 3e-3,
        "batch_size": 16,
        "optimizer": "adamw",
        "d_model": 64,
    }
    assert (first.loss, first.tokens, first.weights) == (3.91, 1_000_000, 98_000)
    assert "optimizer" not in second.parameters
    assert math.isinf(second.loss)
    assert (table.source.kind, table.source.trials) == ("table", 2)
    assert "host is no parameter" in table.left_out[0]


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("tokens", "steps", "has no column tokens"),
        ("val_loss", "value", "has no column val_loss"),
        ("val_loss", "perplexity", "another metric, and not val_loss"),
        ("val_loss", "dev_loss", "a metric that tuner does not know, and not val_loss"),
        ("3.91", "nan", "line 2: val_loss is not a number (nan)"),
        ("3.91", "good", "line 2: val_loss must be a number, got good"),
        ("3.91", "", "line 2: val_loss must be a number, got nothing"),
        ("98000,3.91", "0,3.91", "line 2: weights must be a whole number above 0"),
        ("3e-3", "high", "line 2: α_max cannot be high"),
        ("3e-3", "inf", "line 2: α_max must be a finite number"),
        ("adamw", "adam99", "line 2: optimizer cannot be adam99"),
        ("B,", "max_learning_rate,", "two columns of max_learning_rate"),
        (",a\n", "\n", "line 2: the row must have 8 cells"),
        (TABLE[TABLE.index("\n") + 1 :], "", "has no finished trial"),
        (TABLE, "", "has no column val_loss"),
        (TABLE, "tokens,weights,val_loss\n1,1,3\n", "has no column of a parameter"),
    ],
)
def test_bad_tables_are_refused(tmp_path: Path, old: str, new: str, says: str) -> None:
    with pytest.raises(TunerError) as caught:
        read_table(written(tmp_path, TABLE.replace(old, new, 1)))
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_large_and_foreign_files_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = written(tmp_path, TABLE)
    monkeypatch.setattr(tables, "_MOST_ROWS", 1)
    with pytest.raises(TunerError, match="more than 1 rows"):
        read_table(place)
    monkeypatch.setattr(tables, "_MOST_BYTES", 10)
    with pytest.raises(TunerError, match="is larger than"):
        read_table(place)
    monkeypatch.undo()
    Path(place).write_bytes(b"\xff\xfe\x00")
    with pytest.raises(TunerError, match="no text in UTF-8"):
        read_table(place)
    with pytest.raises(TunerError, match="there is no file"):
        read_table(str(tmp_path / "none.csv"))


# studies ------------------------------------------------------------------------------------------


def study_of(storage: str | optuna.storages.BaseStorage, name: str, **more: str) -> optuna.Study:
    study = optuna.create_study(study_name=name, storage=storage, **more)
    study.set_user_attr("weights", 98_000)
    for rate, batch in ((1e-3, 8), (1e-2, 16)):
        study.enqueue_trial({"α_max": rate, "B": batch})
        trial = study.ask()
        trial.suggest_float("α_max", 1e-4, 1e-1, log=True)
        trial.suggest_categorical("B", [8, 16])
        trial.set_user_attr("tokens", 1_000_000)
        study.tell(trial, 3 + rate)
    study.tell(study.ask(), state=optuna.trial.TrialState.FAIL)
    return study


def journal(path: Path) -> optuna.storages.BaseStorage:
    backend = optuna.storages.journal.JournalFileBackend(str(path))
    return optuna.storages.JournalStorage(backend)


def test_studies_are_read_from_databases_and_journals(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'study.db'}"
    study_of(url, "one")
    study_of(journal(tmp_path / "study.log"), "one")
    found = [read_table(place) for place in (url, url[10:], str(tmp_path / "study.log"))]
    assert found[0].rows == found[1].rows == found[2].rows
    assert found[0].source.digest == found[2].source.digest
    assert [row.parameters["batch_size"] for row in found[0].rows] == [8, 16]
    assert [row.loss for row in found[0].rows] == [3.001, 3.01]
    study_of(url, "two")
    with pytest.raises(TunerError, match=r"several studies, one and two; write .*::one"):
        read_table(url)
    assert read_table(f"{url}::two").rows == found[0].rows
    with pytest.raises(TunerError, match=r"no study twoo.*two"):
        read_table(f"{url}::twoo")


@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
def test_other_studies_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "study.log"
    with pytest.raises(TunerError, match="there is no file"):
        read_table(str(path))
    with pytest.raises(TunerError, match="there is no file"):
        read_table(f"sqlite:///{tmp_path / 'none.db'}")
    assert list(tmp_path.iterdir()) == []
    path.write_text("no journal\n")
    with pytest.raises(TunerError, match="has no study of Optuna"):
        read_table(str(path))
    path.unlink()
    (tmp_path / "text.db").write_text("no database\n")
    with pytest.raises(TunerError, match="cannot be read as a study of Optuna"):
        read_table(str(tmp_path / "text.db"))
    study = study_of(journal(path), "up", direction="maximize")
    with pytest.raises(TunerError, match="another direction than val_loss"):
        read_table(str(path))
    study.set_metric_names(["accuracy"])
    with pytest.raises(TunerError, match="a metric that tuner does not know"):
        read_table(str(path))


def test_trials_are_evidence_on_a_text_of_their_own(tmp_path: Path) -> None:
    text = TABLE.replace("d_model", "context_length").replace("host\n", "warmup_steps\n")
    place = written(tmp_path, text.replace(",a\n", ",100\n").replace(",b\n", ",\n"))
    evidence = collect(Home.of(tmp_path / "none"), [place]).evidence
    values = [s.value(float(x)) for s, x in zip(SETTINGS, evidence.points[0], strict=True)]
    assert values[:2] == pytest.approx([3e-3, 16 * 64])
    assert values[6] == pytest.approx(100 * 16 * 64 / 1e6)  # of all updates
    assert values[2] == pytest.approx(SETTINGS[2].level[0])
    assert evidence.losses.tolist() == [3.91, math.inf]
    assert set(evidence.texts) == {place}


@pytest.mark.parametrize(
    ("header", "missing"),
    [
        ("λ,B,context_length", "α_max"),
        ("α_max,λ,context_length", "B"),
        ("α_max,B,λ", "context_length"),
    ],
)
def test_trial_that_says_nothing_is_refused(tmp_path: Path, header: str, missing: str) -> None:
    values = {"α_max": "1e-2", "B": "8", "context_length": "64", "λ": "0.1"}
    row = ",".join(values[name] for name in header.split(","))
    place = written(tmp_path, f"{header},tokens,weights,val_loss\n{row},1e6,98000,3.9\n")
    with pytest.raises(TunerError, match=f"has a trial without {missing}"):
        collect(Home.of(tmp_path / "none"), [place])
