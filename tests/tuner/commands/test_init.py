from __future__ import annotations

import json
from pathlib import Path

import pytest

from tuner.cli import main
from tuner.space_file.load import load_space
from tuner.space_file.shipped import find_space, shipped_spaces

FOLDER = Path(__file__).parents[3] / "search_spaces"


@pytest.fixture(autouse=True)
def _in_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_shipped_spaces_are_those_of_the_repository() -> None:
    assert shipped_spaces() == {path.stem: path for path in sorted(FOLDER.glob("*.yaml"))}
    assert "lm" in shipped_spaces()


def test_init_writes_a_space_with_its_comments(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["init", "seq2seq", "--json"]) == 0
    output = capsys.readouterr()
    assert json.loads(output.out) == {"study": "seq2seq", "file": str(tmp_path / "seq2seq.yaml")}
    assert "'tuner search --space seq2seq.yaml' runs it" in output.err
    text = (FOLDER / "seq2seq.yaml").read_text()
    assert (tmp_path / "seq2seq.yaml").read_text() == text.replace("search_spaces/", "")
    assert load_space("seq2seq.yaml") == load_space(FOLDER / "seq2seq.yaml")


def test_init_replaces_a_file_only_by_force(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "lm.yaml").write_text("mine")
    assert main(["init"]) == 2
    assert capsys.readouterr().err == "tuner init: lm.yaml exists already; --force replaces it\n"
    assert (tmp_path / "lm.yaml").read_text() == "mine"
    assert main(["init", "--force"]) == 0
    assert "α_max" in (tmp_path / "lm.yaml").read_text()


def test_init_refuses_unknown_studies_and_lists_the_others(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["init", "qqq"]) == 2
    error = capsys.readouterr().err
    assert "unknown study qqq; valid names: attention, finetune, lm, lm_gpu, optimizers" in error
    assert main(["init", "../lm"]) == 2
    assert not list(tmp_path.iterdir())
    assert main(["init", "--list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == list(shipped_spaces())
    assert lines[2].split(None, 1)[1].startswith("The default study: a small language model")


def test_init_names_a_folder_that_cannot_be_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "lm.yaml").mkdir()
    assert main(["init", "--force"]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"tuner init: cannot write {tmp_path}/lm.yaml: Is a directory; ")


def test_space_is_found_by_the_name_of_its_study(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert find_space("lm") == FOLDER / "lm.yaml"
    assert load_space("lm") == load_space(FOLDER / "lm.yaml")
    assert find_space("lm.yaml") is None
    assert main(["validate", "--space", "lm.yaml", "--home", "home"]) == 2
    assert "lm.yaml: cannot read the search space: No such file or directory; --space lm takes" in (
        capsys.readouterr().err
    )
    (tmp_path / "lm.yaml").write_text("name: mine\nbudget: {tokens: 1e5}")
    assert load_space("lm").name == "mine"
    assert main(["validate", "--space", "lm", "--home", "home"]) == 0
    assert "--space lm: lm.yaml, which is in this folder\n" in capsys.readouterr().err
    (tmp_path / "lm").write_text("name: other\nbudget: {tokens: 1e5}")
    assert find_space("lm") is None
    assert load_space("lm").name == "other"
