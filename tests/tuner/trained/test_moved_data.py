"""Data and tokenizers that moved along with the home are found beside it."""

from __future__ import annotations

from pathlib import Path

import pytest

from model.errors import CorpusError
from model.sources.fingerprint import fingerprint
from model.spec.data import DataConfig, TokenizerConfig
from tuner.home.home import Home
from tuner.space_file.load import load_space
from tuner.trained.moved_data import find_data, moved_data, present_space, with_recorded_paths


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A folder with texts, a space, and a home with a tokenizer."""
    folder = tmp_path / "project"
    (folder / "data" / "texts").mkdir(parents=True)
    for name in ("a", "b"):
        (folder / "data" / "texts" / f"{name}.txt").write_text(f"text {name}")
    (folder / "runs" / "starts").mkdir(parents=True)
    (folder / "runs" / "starts" / "tokenizer.json").write_text("{}")
    return folder


def home_of(project: Path) -> Home:
    return Home(project / "runs", "http://somewhere")


@pytest.mark.parametrize("files", [["data/texts"], ["data/texts/*.txt"], ["data/texts/a.txt"]])
def test_moved_data_are_found_beside_the_home(project: Path, files: list[str]) -> None:
    data = DataConfig(files=tuple(str(project / file) for file in files))
    digest = fingerprint(data).digest
    moved = project.rename(project.with_name("moved"))
    expected = tuple(str(moved / file) for file in files)
    assert moved_data(data, home_of(moved)).files == expected
    config, found = find_data(data, digest, home_of(moved))
    assert (config.files, found.digest) == (expected, digest)


def test_recorded_data_come_first_unless_they_changed(project: Path, tmp_path: Path) -> None:
    data = DataConfig(files=(str(project / "data"),))
    digest = fingerprint(data).digest
    copy = tmp_path / "copy" / "project"
    (copy / "data" / "texts").mkdir(parents=True)
    for path in (project / "data" / "texts").iterdir():
        (copy / "data" / "texts" / path.name).write_bytes(path.read_bytes())
    assert find_data(data, digest, home_of(copy))[0] == data
    (project / "data" / "texts" / "c.txt").write_text("new")
    assert find_data(data, digest, home_of(copy))[0].files == (str(copy / "data"),)
    (copy / "data" / "texts" / "d.txt").write_text("new as well")
    config, found = find_data(data, digest, home_of(copy))
    assert config == data  # the recorded place is the one to name
    assert [file.name for file in found.files] == [
        "texts/a.txt", "texts/b.txt", "texts/c.txt"
    ]  # fmt: skip


def test_missing_data_are_named_as_recorded(project: Path) -> None:
    data = DataConfig(files=(str(project / "gone"),))
    assert moved_data(data, home_of(project)) == data
    with pytest.raises(CorpusError, match=str(project / "gone")):
        find_data(data, "0" * 64, home_of(project))
    assert moved_data(DataConfig(), home_of(project)) == DataConfig()


def test_moved_space_has_recorded_and_present_paths(project: Path) -> None:
    (project / "lm.yaml").write_text("data: {files: data/texts}\nbudget: {tokens: 100_000}\n")
    recorded = load_space(project / "lm.yaml").model_copy(
        update={
            "tokenizer": TokenizerConfig(file=str(project / "runs" / "starts" / "tokenizer.json"))
        }
    )
    moved = project.rename(project.with_name("moved"))
    home = Home(moved / "runs", "http://somewhere")
    present = present_space(recorded, home)
    assert present.data.files == (str(moved / "data" / "texts"),)
    assert present.tokenizer.file == str(moved / "runs" / "starts" / "tokenizer.json")
    edited = load_space(moved / "lm.yaml")
    assert edited.data == present.data
    assert with_recorded_paths(edited, recorded, home).data == recorded.data
    other = edited.model_copy(update={"data": DataConfig()})
    assert with_recorded_paths(other, recorded, home) == other
    assert present_space(edited, home) == edited
