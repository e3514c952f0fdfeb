"""Mutated records: the readers of homes refuse them in one sentence, whatever they hold.

`make fuzz` reads 2,000 mutations of each kind of record; the tests keep the first ones.
"""

from __future__ import annotations

import copy
import json
import math
import os
import random
import shutil
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save

from model.checkpoints import checkpoint, store
from model.checkpoints.warm_start import WarmStartSource
from model.engine.measurements import add_measurement, read_measurements
from model.errors import ModelError
from model.exchange.torch_state import load_exported
from model.sources.fingerprint import fingerprint
from model.spec.data import DataConfig
from tests.e2e.conftest import Workplace
from tests.mutations import (
    MUTATIONS,
    VALUES,
    check_reading,
    is_sentence,
    mutated_bytes,
    mutated_json,
    mutated_value,
    time_limit,
    writes_only,
)
from tests.tuner.journal_text import chained, events_of
from tuner.cli import main
from tuner.conductor.conductor import Conductor
from tuner.errors import TunerError
from tuner.journal import journal as journals
from tuner.journal.fold import Search
from tuner.journal.repeat import repeat, restored_decisions
from tuner.results.result import SearchResult

ERRORS = (TunerError, ModelError)
SEARCHES = ("small-1", "cut-1")
_NUMBERS = (0, 1, 2, -1, 0.5, 10**6, 10**12, 1e-300, math.nan, math.inf)
_WORDS = (
    "",
    "x",
    "weight_decay",
    "optimizer",
    "grid",
    "log",
    "finished",
    "stopped at report 3",
    None,
)


@pytest.fixture(scope="module")
def home(golden: Workplace, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(shutil.copytree(golden.home, tmp_path_factory.mktemp("mutated") / "runs"))


# journals ----------------------------------------------------------------------------------------


def journal_of(home: Path, search: str) -> Path:
    return home / "searches" / search / "journal.jsonl"


def mutated_journal(seeds: Sequence[list[dict[str, Any]]], number: int) -> bytes:
    """A journal with one changed event: by a value that might fit, or by any other."""
    rng = random.Random(f"journal {number}")
    events = copy.deepcopy(rng.choice(seeds))
    place = rng.choice((0, 1, 2, 3, len(events) - 1, rng.randrange(len(events))))
    if rng.random() < 0.7:
        for holder, key in rng.sample([*leaves(events[place])], rng.randint(1, 2)):
            holder[key] = rng.choice(_WORDS if isinstance(holder[key], str) else _NUMBERS)
    elif rng.random() < 0.5:
        other = rng.randrange(len(events))
        events[place], events[other] = events[other], events[place]
    else:
        event = mutated_value(events[place], number)
        events[place] = event if isinstance(event, dict) else {}
    try:
        return chained(events)
    except (UnicodeEncodeError, ValueError):  # a value that no journal can hold
        return b""


def leaves(value: Any) -> Iterator[tuple[Any, Any]]:
    keys = value if isinstance(value, dict) else range(len(value)) if type(value) is list else ()
    for key in keys:
        if isinstance(value[key], dict | list):
            yield from leaves(value[key])
        else:
            yield value, key


def read_journal(file: Path) -> None:
    """Read a journal as `show`, `report` and `search --resume` do."""
    entries = journals.read_entries(file.parent)
    journals.check_digest("lm-1", entries, None)
    events = [entry.event for entry in entries]
    search = Search.of(events)
    if search is None:
        return
    if search.sessions:
        conductor = Conductor(
            search.first_space, search.facts, search.sessions[0].slots,
            restored=restored_decisions(events, lambda _: ()),
        )  # fmt: skip
        repeat(conductor, events, "lm-1")
    result = SearchResult.of("lm-1", search, run_id="0" * 32, experiment_id="1", run_ids={})
    if result is None:
        return
    if "TUNER_FUZZ" in os.environ and file.stat().st_size % 10 == 0:  # a page takes a while
        from tuner.report.page import html_of

        html_of(result)


@pytest.mark.slow
def test_mutated_journal_with_fitting_checksums(home: Path, tmp_path: Path) -> None:
    seeds = [events_of(journal_of(home, search)) for search in SEARCHES]
    (tmp_path / "journal.jsonl").write_bytes(chained(seeds[0]))
    read_journal(tmp_path / "journal.jsonl")  # imports, before memory is measured
    refused = check_reading(
        lambda number: mutated_journal(seeds, number),
        read_journal,
        tmp_path,
        "journal.jsonl",
        ERRORS,
    )
    assert 0 < refused < MUTATIONS  # some mutations are harmless


@pytest.mark.slow
def test_mutated_bytes_of_a_journal(home: Path, tmp_path: Path) -> None:
    seeds = [journal_of(home, search).read_bytes() for search in SEARCHES]

    def open_journal(file: Path) -> None:
        journals.Journal.open(file.parent).close()

    refused = check_reading(
        lambda number: mutated_bytes(seeds, number), open_journal, tmp_path, "journal.jsonl", ERRORS
    )
    assert 0 < refused < MUTATIONS


# checkpoints -------------------------------------------------------------------------------------


def mutated_checkpoint(seeds: Sequence[bytes], number: int) -> bytes:
    """A checkpoint with other bytes, another header, or other tensors and a digest that fits."""
    rng = random.Random(f"checkpoint {number}")
    data = rng.choice(seeds)
    if rng.random() < 0.2:
        return mutated_bytes([data], number)
    if rng.random() < 0.2:
        length = int.from_bytes(data[:8], "little")
        header = mutated_json([json.loads(data[8 : 8 + length])], number)
        return len(header).to_bytes(8, "little") + header + data[8 + length :]
    tensors, metadata = checkpoint.unpack(data, "seed")
    for name in rng.sample(sorted(tensors), rng.randint(0, 2)):
        tensors[name] = rng.choice((
            tensors[name].reshape(-1), tensors[name][:0], tensors[name].to(torch.int64),
            tensors[name].to(torch.bfloat16), torch.full_like(tensors[name], math.nan),
        ))  # fmt: skip
        if rng.random() < 0.3:
            tensors[rng.choice(("x", "weights.", "mean.x", "weights.layers.9.x"))] = tensors.pop(
                name
            )
    text = json.dumps(mutated_value(metadata, number) if rng.random() < 0.7 else metadata)
    header = {"format": "tuner/1", "about": text, "sha256": checkpoint.digest(tensors, text)}
    return save({name: tensor.contiguous() for name, tensor in tensors.items()}, header)


def read_checkpoint(file: Path) -> None:
    """Read a checkpoint as a warm start, and as a search that continues does."""
    source = WarmStartSource.read(file)
    for optimizer_state in (False, True):
        source.tensors_for(optimizer_state=optimizer_state)
    assert f"{source.step:,} updates, {source.val_loss:.4f}"
    state = store.read(file)
    assert [f"{loss:.4f}" for loss in state.val_losses] or not state.step < 0


@pytest.mark.slow
def test_mutated_checkpoint(home: Path, tmp_path: Path) -> None:
    seeds = [path.read_bytes() for path in sorted(home.glob("artifacts/**/checkpoint.safetensors"))]

    def mutate(number: int) -> bytes:
        try:
            return mutated_checkpoint(seeds, number)
        except (UnicodeEncodeError, ValueError):
            return b""

    assert 0 < check_reading(mutate, read_checkpoint, tmp_path, "x.safetensors", ERRORS) < MUTATIONS


# caches and exports ------------------------------------------------------------------------------


@pytest.mark.slow
def test_mutated_calibration_is_measured_again(tmp_path: Path) -> None:
    seed = {"ab": {"slots": 4, "device": "cuda", "torch": "2", "architecture": {"d_model": 4}}}

    def read(file: Path) -> None:
        for entry in read_measurements(file).values():
            entry.get("slots")
        add_measurement(file, "cd", {"slots": 1})
        assert read_measurements(file)["cd"] == {"slots": 1}

    assert not check_reading(
        lambda number: mutated_json([seed], number), read, tmp_path, "calibration.json", ()
    )


@pytest.mark.slow
def test_mutated_memo_of_digests_is_computed_again(tmp_path: Path) -> None:
    text = tmp_path / "a.txt"
    text.write_text("a text", encoding="utf-8")
    os.utime(text, (1, 1))
    seed = {str(text): [7, 10**9, "0" * 64], "/x": [1, 2, "1" * 64]}
    digest = fingerprint(DataConfig(files=(str(text),))).digest

    def read(file: Path) -> None:
        assert fingerprint(DataConfig(files=(str(text),)), file).digest == digest

    assert not check_reading(
        lambda number: mutated_json([seed], number), read, tmp_path, "digests.json", ()
    )


@pytest.mark.slow
def test_mutated_export(home: Path, tmp_path: Path) -> None:
    (model,) = home.glob("artifacts/models/*/artifacts/data")
    for path in model.iterdir():
        shutil.copy(path, tmp_path)
    load_exported(tmp_path)
    for name in ("spec.json", "model.safetensors"):
        seed = (tmp_path / name).read_bytes()

        def mutate(
            number: int, seed: bytes = seed, *, is_json: bool = name == "spec.json"
        ) -> bytes:
            if is_json and number % 2:
                return mutated_json([json.loads(seed)], number)
            return mutated_bytes([seed], number)

        assert check_reading(mutate, lambda _: load_exported(tmp_path), tmp_path, name, ERRORS)
        (tmp_path / name).write_bytes(seed)


# the store ---------------------------------------------------------------------------------------

_COLUMNS = {
    "tags": ("value", "key"), "params": ("value", "key"), "metrics": ("value", "step", "is_nan"),
    "latest_metrics": ("value", "key", "is_nan"), "experiments": ("name", "lifecycle_stage"),
    "runs": ("name", "status", "start_time", "lifecycle_stage", "artifact_uri", "run_uuid"),
    "alembic_version": ("version_num",),
}  # fmt: skip
_CELLS = (
    *(value for value in VALUES if not isinstance(value, list | dict)), b"\xff\x00", "[red]x[/red]",
    "nan", "1e999", "x'y", "-5", "9" * 20, "stopped at report x", "stopped at report 3", "diverged",
    "../../x",
)  # fmt: skip
_COMMANDS = (
    ("list",), ("list", "--json"), ("show", "--search", "small-1"), ("show", "small-1/0"),
    ("show", "small-1/1", "--json"), ("show", "--search", "small-1", "--by", "B"),
    ("compare", "small-1/0", "small-1/1"), ("clean", "--dry-run"), ("delete", "small-1"),
)  # fmt: skip
_COMMANDS_OF_FUZZ = (
    ("export", "small-1/3", "-o", "x", "--force"), ("report", "--search", "small-1", "-o", "r"),
    ("replay", "small-1/1"), ("sync", "small-1"), ("generate", "small-1/3", "--max-tokens", "2"),
)  # fmt: skip


def mutate_rows(database: Path, number: int) -> None:
    rng = random.Random(f"rows {number}")
    with closing(sqlite3.connect(database)) as connection, connection:
        connection.execute("PRAGMA ignore_check_constraints = 1")
        for _ in range(rng.randint(1, 3)):
            table = rng.choice(list(_COLUMNS))
            column, cell = rng.choice(_COLUMNS[table]), rng.choice(_CELLS)
            rows = [row for (row,) in connection.execute(f"SELECT rowid FROM {table}")]
            try:
                if rng.random() < 0.15:
                    connection.execute(f"DELETE FROM {table} WHERE rowid = ?", (rng.choice(rows),))
                else:
                    change = f"UPDATE {table} SET {column} = ? WHERE rowid = ?"
                    connection.execute(change, (cell, rng.choice(rows)))
            except (sqlite3.IntegrityError, OverflowError, UnicodeEncodeError, IndexError):
                continue  # no database can hold that


@pytest.mark.slow
def test_mutated_rows_of_the_store(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    copied = shutil.copytree(home, tmp_path / "runs")
    assert main(["list", "--home", str(copied)]) == 0  # corrects the paths
    database = copied / "mlflow.db"
    original = database.read_bytes()
    commands = _COMMANDS + (_COMMANDS_OF_FUZZ if "TUNER_FUZZ" in os.environ else ())
    statuses = set()
    for number in range(MUTATIONS // 5):
        rng = random.Random(f"command {number}")
        for journal in copied.glob("mlflow.db-*"):
            journal.unlink()
        database.write_bytes(original)
        mutate_rows(database, number)
        command = rng.choice(commands)
        capsys.readouterr()
        try:
            with time_limit(seconds=60):
                statuses.add(main([*command, "--home", str(copied)]))
        except BaseException as error:
            raise AssertionError(f"mutation {number}, {command}") from error
        captured = capsys.readouterr()
        for line in (captured.err + captured.out).splitlines():
            assert line.isprintable(), (number, command)
        if statuses == {2}:
            assert is_sentence(captured.err.splitlines()[-1]), (number, command)
    assert {0, 2} == statuses


@pytest.mark.slow
def test_hostile_names_stay_in_the_home(home: Path, tmp_path: Path) -> None:
    """A search whose name is a path has no folder: nothing there is read, made or locked."""
    copied = shutil.copytree(home, tmp_path / "runs")
    assert main(["list", "--home", str(copied)]) == 0
    with closing(sqlite3.connect(copied / "mlflow.db")) as connection, connection:
        change = "UPDATE tags SET value = ? WHERE key = 'tuner.search' AND value = 'cut-1'"
        connection.execute(change, ("../../outside",))
    outside = tmp_path / "outside"
    shutil.copytree(home / "searches" / "cut-1", outside)
    before = sorted(path.name for path in outside.iterdir())
    with writes_only(copied):
        assert main(["list", "--home", str(copied)]) == 0
        assert main(["report", "-o", str(copied / "x.html"), "--home", str(copied)]) == 2
    assert sorted(path.name for path in outside.iterdir()) == before
