"""Warm starts from end to end: a search, a search that starts from its best trial, its replay."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from model import prepare
from model.checkpoints import checkpoint
from tests.e2e.conftest import Run, Workplace, make_workplace
from tests.e2e.test_spaces import conducted
from tests.tuner.tracking.recorded import stored_reports, stored_spec
from tuner.space_file.load import read_space
from tuner.tracking.record import Record
from tuner.tracking.records import SearchRecord
from tuner.tracking.tags import CHECKPOINT_FILE

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("searched")]

SPACE = """\
name: tuned
init_from: {search: small}
data: {files: others, validation_fraction: 0.2}
model: {d_model: 16, n_layers: 1, n_heads: 2, context_length: 16, d_ff: 32}
hyperparameters:
  α_max: {log: [1e-4, 1e-2]}
  B: 4
budget: {tokens: 6000, reports: 3, validation_tokens: 1024}
search: {trials: 2, seed: 1, scheduler: none}
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Workplace:
    """A place of its own, with other texts to tune on."""
    folder = tmp_path_factory.mktemp("finetune")
    place = make_workplace(folder)
    (folder / "others").mkdir()
    for path in (folder / "texts").iterdir():
        text = path.read_text(encoding="utf-8").replace("fox", "wolf").replace("night", "day")
        (folder / "others" / path.name).write_text(text, encoding="utf-8")
    (folder / "tuned.yaml").write_text(SPACE, encoding="utf-8")
    return place


@pytest.fixture(scope="module")
def searched(place: Workplace) -> Run:
    run = place.tuner(
        "search", "--space", "small.yaml", "--workers", "1", "--trials", "2",
        "--set", "confirm=off", "--json",
    )  # fmt: skip
    assert run.status == 0, run.err
    return run


@pytest.fixture(scope="module")
def record(place: Workplace, searched: Run) -> Record:
    return Record(f"sqlite:///{place.home}/mlflow.db")


@pytest.fixture(scope="module")
def tuned(place: Workplace, searched: Run) -> Run:
    run = place.tuner("search", "--space", "tuned.yaml", "--workers", "1", "--json")
    assert run.status == 0, run.err
    return run


@pytest.fixture(scope="module")
def tuned_search(record: Record, tuned: Run) -> SearchRecord:
    return record.search("tuned-1")


def refusal(place: Workplace, *changes: tuple[str, str]) -> str:
    """What is said of the space with some texts replaced; nothing is recorded."""
    text = SPACE
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    (place.folder / "refused.yaml").write_text(text, encoding="utf-8")
    record = Record(f"sqlite:///{place.home}/mlflow.db")
    before = record.searches()
    run = place.refused("search", "--space", "refused.yaml")
    assert "Traceback" not in run.err
    assert record.searches() == before
    last: str = run.err.strip().splitlines()[-1]
    return last


@contextmanager
def without(path: Path) -> Iterator[None]:
    """A file or folder is gone, and comes back."""
    away = path.with_name(f"{path.name}.away")
    path.rename(away)
    yield
    if path.exists():
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    away.rename(path)


def artifacts(place: Workplace, search: SearchRecord) -> Path:
    return place.home / "artifacts" / search.run_id / "artifacts"


def state_of(place: Workplace, record: Record, run_id: str | None) -> Path:
    assert run_id is not None
    return place.home / "artifacts" / run_id / "artifacts" / CHECKPOINT_FILE


# what it does ------------------------------------------------------------------------------


def test_warm_start_is_far_ahead_of_a_cold_one(
    place: Workplace, record: Record, tuned_search: SearchRecord, searched: Run
) -> None:
    """The first report of the defaults, with the same data, tokenizer and hyperparameters.

    The cold one is trained here: a search of its own is half a minute without anything new.
    """
    tokenizer = artifacts(place, record.search("small-1")) / "tokenizer.json"
    cold = SPACE.replace("init_from: {search: small}", f"tokenizer: {{file: {tokenizer}}}")
    cold = cold.replace("name: tuned", "name: cold").replace("trials: 2", "trials: 1")
    (place.folder / "cold.yaml").write_text(cold, encoding="utf-8")
    space = read_space(place.folder / "cold.yaml")[0]
    corpus = prepare(space.data, space.tokenizer, place.home / "corpora")
    conductor = conducted(space, corpus)
    (cold_row,) = conductor.board.searched
    warm_row = record.trials(tuned_search)[0]
    warm_losses = [values["val_loss"] for values in stored_reports(record, warm_row).values()]
    assert warm_losses[0] < 0.5 * cold_row.reports[0].val_loss
    warm_spec = stored_spec(record, warm_row)
    assert warm_spec.hash != cold_row.spec.hash
    assert warm_spec.model_copy(update={"init_from": None}).hash == cold_row.spec.hash


def test_warm_search_records_what_it_started_from(
    place: Workplace, record: Record, tuned_search: SearchRecord, searched: Run
) -> None:
    source = f"trial {searched.json['best_trial']} of small-1 (run {searched.json['best_run'][:8]})"
    shown = place.tuner("show", "--search", "tuned-1", "--json")
    assert shown.json["init_from"] == source
    one = place.tuner("show", shown.json["best_run"], "--json")
    assert one.json["init_from"] == source
    assert f"started from {source}" in one.err
    init_from = stored_spec(record, record.best(tuned_search)).init_from
    assert init_from is not None
    assert one.json["spec"]["init_from"] == {"sha256": init_from.sha256, "optimizer_steps": 0}
    (kept,) = (artifacts(place, tuned_search) / "start").iterdir()
    assert kept.name == f"{init_from.sha256}.safetensors"
    tensors, _ = checkpoint.read(kept)
    best = state_of(place, record, record.search("small-1").best_run)
    name = "weights.lm_head.weight"
    assert tensors[name].equal(checkpoint.read(best)[0][name])


def test_validate_says_where_trials_start(place: Workplace, tuned: Run) -> None:
    run = place.tuner("validate", "--space", "tuned.yaml", "--json")
    assert run.status == 0
    assert " of small-1 (run " in run.json["init_from"]
    assert "the moments are zero" in " ".join(run.err.split())
    assert "Different from the source" not in run.err
    text = SPACE.replace("n_heads: 2, context_length: 16", "n_heads: 4, context_length: 12")
    text = text.replace("{search: small}", "{search: small-1, optimizer_state: true}")
    (place.folder / "other.yaml").write_text(text, encoding="utf-8")
    run = place.tuner("validate", "--space", "other.yaml")
    assert run.status == 0
    text = " ".join(run.out.split())
    assert "the moments are those of" in text
    assert "context_length 12 instead of 16, n_heads 4 instead of 2, n_kv_heads 4" in text


def test_replay_of_a_warm_trial_is_bit_exact(
    place: Workplace, record: Record, tuned_search: SearchRecord
) -> None:
    """From the home, and when that and the source's own record are gone, from its record."""
    run = place.tuner("replay", "--search", "tuned-1", "--json")
    assert run.json["verdict"] == "bit-exact"
    with without(place.home / "starts"), without(artifacts(place, record.search("small-1"))):
        run = place.tuner("replay", "--search", "tuned-1", "--json")
    assert run.status == 0, run.err
    assert run.json["verdict"] == "bit-exact"


def test_checkpoint_with_optimizer_state_replays(place: Workplace, record: Record) -> None:
    """From a file beside the space, with the tokenizer that goes with it."""
    stored = artifacts(place, record.search("small-1"))
    best = state_of(place, record, record.search("small-1").best_run)
    shutil.copy(best, place.folder / "start.safetensors")
    shutil.copy(stored / "tokenizer.json", place.folder / "tokenizer.json")
    text = SPACE.replace(
        "{search: small}",
        "{checkpoint: start.safetensors, optimizer_state: true}\ntokenizer: {file: tokenizer.json}",
    ).replace("name: tuned", "name: stateful")
    (place.folder / "stateful.yaml").write_text(text, encoding="utf-8")
    run = place.tuner("search", "--space", "stateful.yaml", "--workers", "1", "--trials", "1")
    assert run.status == 0, run.err
    for name in ("start.safetensors", "tokenizer.json"):  # neither is needed again
        (place.folder / name).unlink()
    run = place.tuner("replay", "--search", "stateful-1", "--json")
    assert run.status == 0, run.err
    assert run.json["verdict"] == "bit-exact"


# what it refuses ---------------------------------------------------------------------------


def test_another_shape_is_refused(place: Workplace) -> None:
    message = refusal(place, ("d_ff: 32", "d_ff: {choice: [32, 64]}"))
    assert message.startswith(
        "tuner search: init_from: layers.0.ffn.w1.weight has the shape (64, 16) in a model of this "
        "space and has the shape (32, 16) in trial "
    )
    assert message.endswith("; set model: {d_ff: 32}, as in the source")


def test_another_tokenizer_is_refused(place: Workplace) -> None:
    """One that is given at once, one that is trained as soon as it is there."""
    trained = ("name: tuned", "name: tuned\ntokenizer: {vocab_size: 300}")
    assert "was trained with another tokenizer" in refusal(place, trained)
    made = place.tuner("tokenizer", "train", "others", "--output", "mine", "--vocab-size", "300")
    assert made.status == 0, made.err
    given = ("name: tuned", "name: tuned\ntokenizer: {file: mine}")
    assert refusal(place, given).endswith("leave tokenizer: out, and the source's own is used")


def test_missing_sources_are_refused(place: Workplace, record: Record, searched: Run) -> None:
    missing = ("{search: small}", "{run: 0123abcd}")
    assert "no trial has the run id 0123abcd" in refusal(place, missing)
    stored = artifacts(place, record.search("small-1"))
    with without(state_of(place, record, record.search("small-1").best_run).parent):
        assert "were not kept, only the best trials of a search are" in refusal(place)
    with without(stored / "tokenizer.json"):
        assert "has no tokenizer.json, without which" in refusal(place)


def test_replay_refuses_a_start_that_vanished_or_changed(
    place: Workplace, record: Record, tuned_search: SearchRecord
) -> None:
    (kept,) = (artifacts(place, tuned_search) / "start").iterdir()
    whole = kept.read_bytes()
    with without(place.home / "starts"):
        with without(kept.parent):
            gone = place.tuner("replay", "--search", "tuned-1")
        kept.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
        damaged = place.tuner("replay", "--search", "tuned-1")
        best = state_of(place, record, record.search("small-1").best_run)
        shutil.copy(best, kept)
        other = place.tuner("replay", "--search", "tuned-1")
        kept.write_bytes(whole)
    assert gone.status == damaged.status == other.status == 2
    assert f"are gone from the record of tuned-1; put a copy of them at {place.home}" in gone.err
    assert "in the record of tuned-1, " in damaged.err
    assert "is damaged: its checksum does not match" in damaged.err
    assert "holds other weights than the trial started from" in other.err
    assert "Traceback" not in gone.err + damaged.err + other.err
