"""Data sets of the hub: a local one by the real library, and the sentences when there is none."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from model.errors import CorpusError
from model.sources import hub
from model.sources.fingerprint import fingerprint
from model.sources.hub import EXAMPLES, commit, hub_name, local_files
from model.sources.registry import documents, source_bytes, source_files
from model.spec.data import DataConfig

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is read from or left in the user's cache, and answers are forgotten."""
    pytest.importorskip("datasets")
    monkeypatch.setattr(
        "datasets.config.HF_DATASETS_CACHE", str(tmp_path_factory.getbasetemp() / "datasets")
    )
    hub._resolve.cache_clear()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A data set with two splits, null and blank texts."""
    root = tmp_path / "set"
    root.mkdir()
    rows: list[dict[str, Any]] = [{"text": f"row {i} é", "n": i} for i in range(8)]
    rows[2]["text"], rows[4]["text"] = None, " \n"
    (root / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (root / "test.jsonl").write_text(json.dumps({"text": "held out", "n": 0}) + "\n")
    (root / ".cache").mkdir()
    (root / ".cache" / "x").touch()
    return root


def config(name: Path | str, **more: Any) -> DataConfig:
    return DataConfig(hub=str(name), **more)


def read(data: DataConfig) -> dict[str, str]:
    return {name: text for name, text, _ in documents(data)}


def test_a_local_data_set_is_read_by_rows(folder: Path) -> None:
    assert read(config(folder)) == {f"train#{i}": f"row {i} é" for i in (0, 1, 3, 5, 6, 7)}
    assert read(config(folder, split="test")) == {"test#0": "held out"}
    assert source_files(config(folder)) == []
    assert source_bytes(config(folder)) is None


@pytest.mark.parametrize("splits", [False, True])
def test_a_data_set_that_was_saved_is_read(tmp_path: Path, splits: bool) -> None:
    import datasets

    datasets.disable_progress_bars()
    data: Any = datasets.Dataset.from_dict({"text": ["a", "b"]})
    (datasets.DatasetDict({"train": data}) if splits else data).save_to_disk(tmp_path / "saved")
    assert read(config(tmp_path / "saved")) == {"train#0": "a", "train#1": "b"}


def test_files_of_a_local_data_set_are_its_identity(folder: Path) -> None:
    found = local_files(config(folder))
    assert found is not None
    assert [file.name for file in found] == ["test.jsonl", "train.jsonl"]
    first = fingerprint(config(folder))
    assert [file.name for file in first.files] == ["test.jsonl", "train.jsonl"]
    moved = folder.rename(folder.with_name("moved"))
    assert fingerprint(config(moved)) == first
    assert fingerprint(config(moved, split="test")).digest != first.digest
    (moved / "test.jsonl").write_text("{}")
    assert fingerprint(config(moved)).digest != first.digest


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"column": "content"}, r"set has no column 'content', only 'text', 'n'; set data.column"),
        ({"column": "n"}, r"set: column 'n' is not text but int; set data.column"),
        (
            {"split": "dev"},
            r"set cannot be loaded \(Bad split: dev.*\); check data.hub, hub_config",
        ),
        ({"hub_config": "x"}, r"set cannot be loaded \(BuilderConfig 'x' not found.*\); check"),
    ],
)
def test_missing_parts_of_local_data_set_are_named(
    folder: Path, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(CorpusError, match=message):
        read(config(folder, **options))


def test_a_local_data_set_without_text_is_named(folder: Path) -> None:
    (folder / "train.jsonl").write_text('{"text": " "}\n')
    with pytest.raises(CorpusError, match=r"set is empty: no row of train has text in its column"):
        read(config(folder))
    for file in folder.glob("*.jsonl"):
        file.unlink()
    with pytest.raises(CorpusError, match=r"set cannot be loaded \(.*any data files\)"):
        read(config(folder))


def test_a_damaged_local_data_set_is_named(folder: Path) -> None:
    (folder / "train.jsonl").write_text('{"text": "a"}\n{"text"\n')
    with pytest.raises(
        CorpusError, match=r"set cannot be read at row 0 of train \(.*\); check the"
    ):
        read(config(folder))


def test_examples_have_short_names() -> None:
    assert hub_name(config("TinyStories")) == "roneneldan/TinyStories"
    assert hub_name(config("OpenWebText")) == "Skylion007/openwebtext"
    assert hub_name(config("owner/name")) == "owner/name"
    assert all(name.count("/") == 1 for name in EXAMPLES.values())


def answer(monkeypatch: pytest.MonkeyPatch, reply: Any) -> list[tuple[Any, ...]]:
    """Let the hub answer; the questions are collected."""
    import huggingface_hub

    asked: list[tuple[Any, ...]] = []

    class Api:
        def dataset_info(self, name: str, revision: str | None, timeout: float) -> Any:
            asked.append((name, revision))
            assert timeout <= 10
            if isinstance(reply, Exception):
                raise reply
            return SimpleNamespace(sha=reply)

    monkeypatch.setattr(huggingface_hub, "HfApi", Api)
    return asked


def test_the_identity_of_a_remote_data_set_is_its_commit(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = answer(monkeypatch, COMMIT)
    newest = fingerprint(config("TinyStories"))
    assert newest.files == (("roneneldan/TinyStories", 0, COMMIT),)
    assert fingerprint(config("TinyStories", revision=COMMIT)) == newest
    assert fingerprint(config("TinyStories", revision="main")) == newest
    assert fingerprint(config("roneneldan/TinyStories")) == newest
    assert asked == [("roneneldan/TinyStories", None), ("roneneldan/TinyStories", "main")]
    others = [{"revision": "f" * 40}, {"split": "test"}, {"column": "x"}, {"hub_config": "x"}]
    digests = {fingerprint(config("TinyStories", **other)).digest for other in others}
    assert len(digests | {newest.digest}) == 5


def test_a_remote_data_set_is_streamed_at_its_commit(monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    answer(monkeypatch, COMMIT)
    called: list[Any] = []

    def load(*args: Any, **options: Any) -> Any:
        called.append((args, options))
        return [{"story": "one"}, {"story": None}, {"story": "three"}]

    monkeypatch.setattr(datasets, "load_dataset", load)
    data = config("TinyStories", hub_config="small", split="validation", column="story")
    assert read(data) == {"validation#0": "one", "validation#2": "three"}
    assert called == [
        (
            ("roneneldan/TinyStories", "small"),
            {"split": "validation", "revision": COMMIT, "streaming": True},
        )
    ]


def refusal(kind: str) -> Exception:
    """An error of the hub as its library makes it."""
    from huggingface_hub import errors

    error: Exception = getattr(errors, kind).__new__(getattr(errors, kind))
    return error


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("RepositoryNotFoundError", r"no data set a/b on the hub, nor a folder of that name; chec"),
        ("HFValidationError", r"no data set a/b on the hub"),
        ("GatedRepoError", r"a/b is gated; accept its terms on huggingface.co"),
        ("RevisionNotFoundError", r"a/b has no revision v1; correct data.revision"),
        ("HfHubHTTPError", r"cannot reach the Hugging Face hub for a/b \(.*\); connect.*pinned"),
        ("OfflineModeIsEnabled", r"cannot reach the Hugging Face hub for a/b \(.*\); connect"),
    ],
)
def test_errors_of_the_hub_are_one_sentence(
    monkeypatch: pytest.MonkeyPatch, kind: str, message: str
) -> None:
    answer(monkeypatch, refusal(kind))
    with pytest.raises(CorpusError, match=message):
        commit(config("a/b", revision="v1"))


def test_missing_datasets_package_is_one_sentence(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    for use in (fingerprint, read):
        with pytest.raises(CorpusError, match=r"not installed; run 'pip install datasets'$"):
            use(config("TinyStories"))  # type: ignore[operator]
    with pytest.raises(CorpusError, match="not installed; run 'pip install"):
        read(config(folder))
    assert fingerprint(config(folder)).digest, "files need no library"
    assert fingerprint(config("TinyStories", revision=COMMIT)).digest, "nor does a commit"


@pytest.mark.slow
@pytest.mark.parametrize("pinned", [False, True])
def test_unreachable_hub_is_one_sentence_within_seconds(tmp_path: Path, pinned: bool) -> None:
    """A hub at a port where nobody listens, asked by a process of its own."""
    revision = COMMIT if pinned else None
    code = (
        "from model.errors import CorpusError\nfrom model.spec.data import DataConfig\n"
        "from model.sources.registry import documents\n"
        "try:\n"
        f"    next(documents(DataConfig(hub='TinyStories', revision={revision!r})))\n"
        "except CorpusError as error:\n"
        "    print(error)\n"
    )
    started = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"HF_ENDPOINT": "http://127.0.0.1:9", "HF_HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
        cwd=Path(__file__).parents[3],
    )
    assert time.perf_counter() - started < 40
    assert done.stdout.startswith("data.hub: cannot reach the Hugging Face hub for roneneldan/Tiny")
    assert done.stdout.count("\n") == 1
    assert not done.stderr
