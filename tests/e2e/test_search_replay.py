"""The main job from end to end: search, record, replay, and a record that was tampered with."""

from __future__ import annotations

import re
import sqlite3
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from subprocess import PIPE, Popen
from sys import executable
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from model import prepare
from model.checkpoints import checkpoint
from model.checkpoints.header import recorded_digest
from model.engine.report import METRICS
from model.keys import derive_key
from model.randomness import permute
from model.spec.hyperparameters import LORA_ROWS, SYMBOL_TABLE
from tests.e2e.command_process import run_command
from tests.e2e.conftest import Run, Workplace
from tests.tuner.journal_text import chained, events_of
from tests.tuner.tracking.recorded import stored_reports, stored_spec
from tuner import load_search, load_trial
from tuner.home.home import Home
from tuner.journal.fold import Search
from tuner.journal.journal import read_entries, read_journal
from tuner.tracking.record import Record
from tuner.tracking.tags import CHECKPOINT_FILE, Tag
from tuner.trained.load_trial import TrainedTrial

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def record(workplace: Workplace, searched: Run) -> Record:
    return Record(f"sqlite:///{workplace.home}/mlflow.db")


@contextmanager
def forged(workplace: Workplace, change: Callable[[dict[str, Any]], None]) -> Iterator[None]:
    """Change events of the journal, and the recorded digest with them; put back both afterwards."""
    folder = workplace.home / "searches" / "small-1"
    journal = folder / "journal.jsonl"

    def record_digest() -> None:
        with closing(sqlite3.connect(workplace.home / "mlflow.db")) as connection, connection:
            statement = f"UPDATE tags SET value = ? WHERE key = '{Tag.JOURNAL}'"
            assert connection.execute(statement, (read_entries(folder)[-1].digest,)).rowcount == 1

    before, events = journal.read_bytes(), events_of(journal)
    for event in events:
        change(event)
    try:
        journal.write_bytes(chained(events))
        record_digest()
        yield
    finally:
        journal.write_bytes(before)
        record_digest()


def test_search_finds_better_than_the_defaults(searched: Run) -> None:
    result = searched.json
    assert result["search"] == "small-1"
    assert result["trials"] == 6
    assert result["best_val_loss"] < result["defaults_val_loss"]
    assert result["tokens_spent"] > 0
    assert result["tokens_spared"] > 0  # ASHA stopped some
    assert 0 < result["training_share"] <= 1


def test_search_prints_plain_lines_and_next_commands(searched: Run) -> None:
    """Nothing of Ray's or MLflow's, no escape codes, and only JSON on standard output."""
    assert len(searched.out.splitlines()) == 1
    assert "\x1b" not in searched.err
    for noise in ("ray", "Ray ", "mlflow.", "alembic", "optuna", "Warning", "WARNING", "INFO"):
        lines = [line for line in searched.err.splitlines() if noise in line]
        assert lines in ([], ["starting Ray and the workers"]), lines
    for expected in (
        "report 1/9", "waits to be promoted", "finished", "best so far", "% lower",
        "Confirmed winner",
        "early stopping saved", "tuner ui", "tuner replay", "tuner show",
    ):  # fmt: skip
        assert expected in searched.err, expected


def test_search_records_parent_and_trials(record: Record, searched: Run) -> None:
    search = record.search()
    assert (search.name, search.status) == ("small-1", "finished")
    assert search.best_run == searched.json["best_run"]
    assert search.metrics["best_val_loss"] == searched.json["best_val_loss"]
    files = {file.path for file in record.client.list_artifacts(search.run_id)}
    assert files == {
        "search_space.yaml", "data.json", "tokenizer.json", "journal.jsonl", "report.html",
    }  # fmt: skip

    trials = record.trials(search)
    assert [trial.number for trial in trials] == list(range(10))
    again = [trial.confirms for trial in trials[6:]]
    assert trials[0].confirms is None
    assert len(set(again)) == 2
    assert {again.count(number) for number in again} == {2}  # seeds
    trials = trials[:6]
    for trial in trials:
        shown = {*SYMBOL_TABLE, "d_model", "n_layers", "context_length"} - {*LORA_ROWS}
        assert trial.parameters.keys() >= shown
        assert trial.status == "finished" or trial.status.startswith("stopped at report")
        run = record.client.get_run(trial.run_id)
        spec = stored_spec(record, trial)
        assert run.data.tags[Tag.SPEC_HASH] == spec.hash
        assert run.data.tags[Tag.SEED] == str(spec.seed) == "1"
        assert run.data.tags[Tag.DATA] == spec.data_fingerprint
        assert run.data.tags[Tag.TOKENIZER] == spec.tokenizer_fingerprint
        assert run.data.tags[Tag.PARENT] == search.run_id
        assert trial.environment["device"].startswith("cpu: ")
        assert "unknown" not in trial.environment.values()
        reports = stored_reports(record, trial)
        assert list(reports) == list(spec.report_steps[: len(reports)])
        assert all(report.keys() == {*METRICS} for report in reports.values())
    assert stored_spec(record, trials[0]).hyperparameters.max_learning_rate == 1e-3  # the default
    assert trials[0].status == "finished"
    assert {t.status for t in trials} > {"finished"}


def test_search_keeps_the_best_checkpoints(
    record: Record, workplace: Workplace, tmp_path: Path
) -> None:
    search = record.search()
    best, trials = record.best(search), record.trials(search)
    file = record.download(best.run_id, CHECKPOINT_FILE, str(tmp_path))
    assert file is not None
    tensors, about = checkpoint.read(file)
    ranked = sorted(
        (t for t in trials[:6] if t.status == "finished"), key=lambda t: t.loss("val_loss")
    )
    kept_states = {t.number for t in trials if record.has(t.run_id, CHECKPOINT_FILE)}
    assert kept_states == {best.number, *(t.number for t in ranked[:3])}
    assert about["spec_hash"] == stored_spec(record, best).hash
    assert about["val_loss"] == best.metrics["val_loss"]
    assert tensors["weights.lm_head.weight"].shape == (300, 16)
    journal = Search.of(read_journal(workplace.home / "searches" / "small-1"))
    assert journal is not None and journal.end is not None
    digests = journal.end.weights
    assert digests.keys() == kept_states and digests[best.number] == recorded_digest(file)
    kept = {path.name for path in (workplace.home / "searches" / "small-1").iterdir()}
    assert kept == {"cursors", "epochs", "journal.jsonl", "lock"}  # the others are cleared away


def test_weights_that_were_replaced_are_refused(record: Record, workplace: Workplace) -> None:
    """Of the right trial, and with a checksum that fits: the journal names the kept ones."""
    best = record.best(record.search())
    file = next(workplace.home.glob(f"artifacts/**/{best.run_id}/artifacts/{CHECKPOINT_FILE}"))
    original = file.read_bytes()
    tensors, about = checkpoint.unpack(original, "")
    try:
        zeros = {name: torch.zeros_like(tensor) for name, tensor in tensors.items()}
        file.write_bytes(checkpoint.pack(zeros, about))
        for command in (["generate", "--prompt", "a"], ["export", "--out", "exported"]):
            run = workplace.tuner(*command)
            assert run.status == 2
            assert f"weights of trial {best.number} of small-1 are not those that the" in run.err
        assert not (workplace.folder / "exported").exists()
    finally:
        file.write_bytes(original)


def test_search_is_read_back_from_its_record(workplace: Workplace, searched: Run) -> None:
    """From the journal here; and where the home has none, from the one that is recorded."""
    home = Home.at(workplace.home)
    result = load_search(home=home)
    assert result.status == "finished"
    assert result.best.number == searched.json["best_trial"]
    assert result.run_ids[result.best.number] == searched.json["best_run"]
    assert result.confirmation is not None
    assert result.confirmation.as_json == searched.json["confirmation"]
    assert result.advice == searched.json["advice"]
    assert result.summary() == {k: searched.json[k] for k in result.summary()}
    assert result.environment["device"].startswith("cpu")
    assert all(0 < t < result.wall_seconds for times in result.times.values() for t in times)
    journals = workplace.home / "searches"
    journals.rename(workplace.home / "moved")
    try:
        again = load_search("small-1", home=home)
        assert again.summary() == result.summary()
        pd.testing.assert_frame_equal(again.curves(), result.curves())
    finally:
        (workplace.home / "moved").rename(journals)


def val_loss(trained: TrainedTrial, home: Path) -> float:
    """Of a trial's weights on the validation text of its reports, by torch's own loss."""
    spec = trained.spec
    length = spec.architecture.context_length
    corpus = prepare(spec.data, spec.tokenizer, home / "corpora")
    tokens = torch.from_numpy(corpus.validation.astype(np.int64))
    windows = tokens.unfold(0, length + 1, length)
    count = np.arange(spec.validation_sequences)  # which, from all over the text
    windows = windows[permute(count, len(windows), derive_key(0, "validation"))]
    with torch.no_grad():
        logits = trained.model()(windows[:, :-1].unsqueeze(0))[0]
    return float(torch.nn.functional.cross_entropy(logits.flatten(0, 1), windows[:, 1:].flatten()))


def test_trial_is_loaded_with_the_weights_of_its_last_report(
    workplace: Workplace, record: Record
) -> None:
    """Those that were kept; and those of a trial that was stopped, by training it again."""
    home = Home.at(workplace.home)
    stopped = next(t for t in record.trials(record.search()) if t.status.startswith("stopped"))
    steps: list[int] = []
    best = load_trial(home=home)
    again = load_trial(
        stopped.run_id[:8], home=home, on_report=lambda n, c, r: steps.append(r.step)
    )
    assert (best.origin, again.origin) == ("kept", "retrained")
    assert steps == list(stored_reports(record, stopped))
    for trained in (best, again):
        recorded = trained.trial.metrics["val_loss"]
        assert val_loss(trained, workplace.home) == pytest.approx(recorded, rel=1e-5)
        assert trained.tokenizer.vocab_size == 300


def test_trials_are_compared_side_by_side(workplace: Workplace, record: Record) -> None:
    first, second = record.trials(record.search())[:2]
    run = workplace.tuner("compare", first.run_id[:8], "small-1/1", "--json")
    assert run.status == 0, run.err
    assert [t["run"] for t in run.json["trials"]] == [first.run_id, second.run_id]
    differing = {n for n in first.parameters if first.parameters[n] != second.parameters[n]}
    assert "max_learning_rate" in run.json["differing"]
    assert run.json["differing"].keys() <= differing
    for trial, curve in zip((first, second), run.json["curves"], strict=True):
        reports = stored_reports(record, trial).values()
        assert curve == {f"{m['tokens']:.0f}": m["val_loss"] for m in reports}
    assert "differences" in run.err
    assert workplace.tuner("compare", "small-1/0", "small-1/99").status == 2
    assert "of an earlier argument" in workplace.tuner("compare", "small-1/0", "small-1/0").err
    assert "two or more trials" in workplace.tuner("compare", "small-1/0").err


def test_replay_best_is_bit_exact(workplace: Workplace, searched: Run) -> None:
    run = workplace.tuner("replay", "--json")
    assert run.status == 0, run.err
    assert run.json["verdict"] == "bit-exact"
    assert run.json["run"] == searched.json["best_run"]
    assert "bit-exact: all 9 reports" in run.err


def test_replay_of_a_stopped_trial_is_bit_exact(workplace: Workplace, record: Record) -> None:
    stopped = [t for t in record.trials(record.search()) if t.status.startswith("stopped")]
    run = workplace.tuner("replay", stopped[0].run_id[:12], "--json")
    assert run.status == 0, run.err
    assert run.json["verdict"] == "bit-exact"
    assert run.json["reports"] == len(stored_reports(record, stopped[0])) < 9


def test_replay_refuses_an_edited_journal(workplace: Workplace, searched: Run) -> None:
    """One number changed: by hand, and by somebody who makes its lines fit again."""
    path = workplace.home / "searches" / "small-1" / "journal.jsonl"
    original = path.read_bytes()
    number = re.search(rb'"train_loss":([0-9.]+)', original)
    assert number is not None
    try:
        path.write_bytes(original.replace(number[0], b'"train_loss":1.5', 1))
        for command in (["replay"], ["show", "small-1/0"], ["compare", "small-1/0", "small-1/1"]):
            run = workplace.tuner(*command)
            assert run.status == 2
            assert "is damaged: it does not match its checksum" in run.err
    finally:
        path.write_bytes(original)


def test_replay_names_the_altered_metric(workplace: Workplace, record: Record) -> None:
    """One number changed, in its last digits, by somebody who can forge the whole record."""
    best = record.best(record.search())
    step = list(stored_reports(record, best))[4]

    def nudge(event: dict[str, Any]) -> None:
        if event["event"] == "report" and event["number"] == best.number:
            event["report"]["train_loss"] *= 1.0000001 if event["report"]["step"] == step else 1

    with forged(workplace, nudge):
        run = workplace.tuner("replay", "--search", "small-1", "--json")
    assert run.status == 1
    assert run.json["verdict"] == "different"
    assert f"different: first at step {step}, train_loss is" in run.err


def test_replay_excuses_only_another_environment(workplace: Workplace, record: Record) -> None:
    best = record.best(record.search())

    def nudge(event: dict[str, Any]) -> None:
        if event["event"] == "session":
            event["environment"]["torch"] = "2.0"
        if event["event"] == "report" and event["number"] == best.number:
            event["report"]["val_loss"] *= 1.001

    with forged(workplace, nudge):
        run = workplace.tuner("replay", best.run_id, "--json")
    assert run.status == 0, run.err
    assert run.json["verdict"] == "within tolerance"
    assert list(run.json["changed"]) == ["torch"]


def test_replay_refuses_changed_data(workplace: Workplace, searched: Run) -> None:
    text = workplace.folder / "texts" / "03.txt"
    before = text.read_text(encoding="utf-8")
    text.write_text(before + " and more", encoding="utf-8")
    (workplace.folder / "texts" / "99.txt").write_text("a new one")
    try:
        run = workplace.tuner("replay")
        text.unlink()
        gone = workplace.tuner("replay")
        prepared = workplace.tuner("replay", "--prepared", "--json")
    finally:
        text.write_text(before, encoding="utf-8")
        (workplace.folder / "texts" / "99.txt").unlink()
    assert run.status == gone.status == 2
    assert "the data has changed: 03.txt changed, 99.txt is new; restore it" in run.err
    assert "the data has changed: 03.txt is gone, 99.txt is new; restore it" in gone.err
    assert "or try 'tuner replay --prepared'" in run.err
    assert "Traceback" not in run.err + gone.err
    assert prepared.json["verdict"] == "bit-exact"


def test_list_and_show_print_searches(workplace: Workplace, searched: Run) -> None:
    listed = workplace.tuner("list", "--json").json["searches"]
    assert [s["name"] for s in listed] == ["small-1"]
    shown = workplace.tuner("show", "--json").json
    assert [trial["confirms"] is None for trial in shown["trials"]] == [True] * 6 + [False] * 4
    assert shown["best_run"] in [trial["run"] for trial in shown["trials"][:2]]
    one = workplace.tuner("show", shown["best_run"], "--json").json
    assert len(one["reports"]) == 9
    assert workplace.tuner("show", "--search", "nothing").status == 2
    assert workplace.tuner("show", "0" * 32).status == 2


def test_show_compares_the_values_of_a_parameter(
    workplace: Workplace, record: Record, searched: Run
) -> None:
    run = workplace.tuner("show", "--by", "B", "--json")
    assert run.status == 0, run.err
    assert (run.json["search"], run.json["by"]) == ("small-1", "batch_size")
    values = {int(v["value"]): v for v in run.json["values"]}
    trials = [t for t in record.trials(record.search()) if t.confirms is None]
    for size, shown in values.items():
        same = [t for t in trials if t.parameters["batch_size"] == str(size)]
        same = [t for t in same if t.number > 0] or same
        finished = [t for t in same if t.status == "finished"]
        losses = sorted(
            t.loss("val_loss") for t in (finished if run.json["only_finished"] else same)
        )
        assert shown["trials"] == len(same)
        assert shown["finished"] == len(finished)
        assert shown["best"] == (losses[0] if losses else None)
        if losses:
            assert losses[0] <= shown["median"] <= losses[-1]
            assert shown["best_run"] in {t.run_id for t in same}
    assert sum(v["trials"] for v in values.values()) == 6 - run.json["without_defaults"]
    assert "best val_loss" in run.err
    wrong = workplace.tuner("show", "--by", "batchsize")
    assert wrong.status == 2
    assert wrong.err.startswith("tuner show: --by: unknown parameter batchsize; did you mean batch")
    assert workplace.tuner("show", searched.json["best_run"], "--by", "B").status == 2


def test_search_that_has_finished_says_so(workplace: Workplace, searched: Run) -> None:
    """The same command again, without Ray; and with a space that is another."""
    again = ("search", "--space", "small.yaml", "--name", "small-1", "--json")
    run = run_command(again, workplace.folder, workplace.environment)
    assert run.status == 0, run.err
    assert "small-1 has finished already: nothing is left to train" in run.err
    assert "starting Ray" not in run.err
    assert run.json == searched.json
    other = workplace.refused(*again, "--set", "model.d_model=32")
    assert "small-1 cannot be resumed with another model.d_model" in other.err


def test_report_has_results_of_the_search(
    workplace: Workplace, searched: Run, record: Record
) -> None:
    given = ["--search", "small-1", "--prompt", "the quick", "--json"]
    run = workplace.tuner("report", *given)
    assert run.status == 0, run.err
    printed = searched.json
    page = (workplace.folder / "report.html").read_text(encoding="utf-8")
    for text in (f"{printed['best_val_loss']:.4f}", printed["best_run"], "Best so far"):
        assert text in page
    assert f"{printed['tokens_spent']:,.0f} tokens" in page
    assert "  α_max: {log: [1e-3, 1e-1]}" in page  # the file as it was written
    written = re.findall(r'<pre class="sample"[^>]*>(the quick[^<]+)</pre>', page)
    trials = record.trials(record.search())
    kept = [trial for trial in trials if record.has(trial.run_id, CHECKPOINT_FILE)]
    assert len(written) == min(3, len(kept)) >= 1
    assert f"<h3>Trial {printed['best_trial']}, the winner</h3>" in page


def test_ui_serves_the_newest_search_on_loopback(workplace: Workplace, searched: Run) -> None:
    command = [executable, "-m", "tuner", "ui", "--port", "5973"]
    with Popen(command, cwd=workplace.folder, stderr=PIPE, text=True) as server:
        try:
            assert server.stderr is not None
            page = [server.stderr.readline() for _ in range(2)][1]
            assert page.startswith("http://127.0.0.1:5973/#/experiments/")
            assert _get("http://127.0.0.1:5973/health", patience=60) == "OK"
            assert "<title>MLflow</title>" in _get("http://127.0.0.1:5973/")
        finally:
            server.terminate()
    assert workplace.tuner("ui", "--port", "70000").status == 2


def _get(address: str, patience: float = 5) -> str:
    until = time.monotonic() + patience
    while True:
        try:
            with urllib.request.urlopen(address, timeout=5) as answer:
                return str(answer.read().decode())
        except OSError:
            if time.monotonic() > until:
                raise
            time.sleep(0.3)
