"""Folders of data sets that name or link to files outside of themselves, and honest ones."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from model.errors import CorpusError
from model.sources.fingerprint import fingerprint
from model.sources.registry import documents
from model.spec.data import DataConfig


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("datasets")
    monkeypatch.setattr(
        "datasets.config.HF_DATASETS_CACHE", str(tmp_path_factory.getbasetemp() / "datasets")
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "set"
    root.mkdir()
    (root / "a.jsonl").write_text('{"text": "inside"}\n')
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "s.jsonl").write_text('{"text": "outside"}\n')
    return root


def card(root: Path, data_files: Any, **more: Any) -> None:
    config = {"config_name": "default", "data_files": data_files, **more}
    (root / "README.md").write_text(f"---\n{json.dumps({'configs': [config]})}\n---\n# A set\n")


def read(root: Path, **options: Any) -> list[str]:
    return [d.text for d in documents(DataConfig(hub=str(root), **options))]


def named(path: Any) -> Callable[[Path], None]:
    return lambda root: card(root, path)


def hidden(root: Path) -> None:
    (root / ".more").mkdir()
    (root / ".more" / "h.jsonl").write_text('{"text": "hidden"}\n')
    card(root, ".more/h.jsonl")


def linked(name: str, target: str) -> Callable[[Path], None]:
    return lambda root: (root / name).symlink_to(target)


def saved(root: Path) -> None:
    import datasets

    datasets.disable_progress_bars()
    datasets.Dataset.from_dict({"text": ["a"]}).save_to_disk(root)
    state = json.loads((root / "state.json").read_text())
    (root / state["_data_files"][0]["filename"]).rename(root.parent / "outside" / "x.arrow")
    state["_data_files"][0]["filename"] = "../outside/x.arrow"
    (root / "state.json").write_text(json.dumps(state))


REFUSED: dict[str, tuple[Callable[[Path], Any], str]] = {
    "parent": (named("../outside/s.jsonl"), r"it names .*outside/s.jsonl, which is hidden or not"),
    "splits": (
        named([{"split": "train", "path": ["a.jsonl", "../outside/*"]}]),
        r"it names .*outside/s.jsonl, which is hidden or not a file of it",
    ),
    "folder": (lambda root: card(root, "*.jsonl", data_dir="../outside"), r"it names .*s\.jsonl"),
    "hidden": (hidden, r"it names .*\.more/h.jsonl, which is hidden or not a file"),
    "settings": (
        lambda root: (root / ".huggingface.yaml").write_text("configs: []"),
        r"\.huggingface\.yaml is a hidden file; move its contents to README.md",
    ),
    "link": (linked("b.jsonl", "../outside/s.jsonl"), r"b.jsonl is a link to .*s.jsonl, outside"),
    "link to a folder": (linked("sub", "../outside"), r"sub is a link to a folder; copy"),
    "state": (saved, r"it names .*outside/x.arrow, which is hidden or not a file of it"),
    "kind": (
        lambda root: (root / "a.jsonl").rename(root / "a.pkl"),
        r"cannot be loaded|would be read as",
    ),
    "head": (
        lambda root: (root / "README.md").write_text(f"---\na: {'[' * 5000}\n---\n"),
        r"cannot be loaded",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_folder_cannot_name_files_outside(folder: Path, case: str) -> None:
    change, message = REFUSED[case]
    change(folder)
    with pytest.raises(CorpusError, match=message) as raised:
        fingerprint(DataConfig(hub=str(folder)))
        read(folder)
    assert "\n" not in str(raised.value)


def test_a_folder_may_name_and_link_to_its_own_files(folder: Path) -> None:
    before = fingerprint(DataConfig(hub=str(folder))).files
    (folder / "b.jsonl").symlink_to("a.jsonl")
    (folder / "gone").symlink_to("nowhere")
    (folder / ".git").symlink_to("../outside")
    card(folder, [{"split": "train", "path": "./b.json*"}])
    assert read(folder) == ["inside"]
    files = fingerprint(DataConfig(hub=str(folder))).files
    assert [f.name for f in files] == ["README.md", "a.jsonl", "b.jsonl"]
    assert before[0] in files


def test_a_snapshot_in_the_cache_of_the_hub_is_read(tmp_path: Path) -> None:
    root = tmp_path / "datasets--a--b" / "snapshots" / "0123"
    root.mkdir(parents=True)
    blobs = root.parent.parent / "blobs"
    blobs.mkdir()
    (blobs / "d1").write_text('{"text": "blob"}\n')
    (root / "a.jsonl").symlink_to("../../blobs/d1")
    assert read(root) == ["blob"]


def test_a_pipe_in_a_folder_is_not_opened(folder: Path) -> None:
    for name in ("b.jsonl", "README.md"):
        os.mkfifo(folder / name)
    assert read(folder) == ["inside"]


def test_columns_beside_the_text_are_not_decoded(folder: Path, tmp_path: Path) -> None:
    """An image is a path, which the library would open."""
    row = {"text": "a", "image": {"path": str(tmp_path / "outside" / "gone.png"), "bytes": None}}
    (folder / "a.jsonl").write_text(json.dumps(row) + "\n")
    features = [{"name": "text", "dtype": "string"}, {"name": "image", "dtype": "image"}]
    (folder / "README.md").write_text(
        f"---\n{json.dumps({'dataset_info': {'features': features}})}\n---\n"
    )
    assert read(folder) == ["a"]
    with pytest.raises(CorpusError, match=r"column 'image' is not text but Image; set data.col"):
        read(folder, column="image")
