from __future__ import annotations

import json
from pathlib import Path

import pytest

from model.tokenizer.tokenizer import Tokenizer
from tests.conftest import VOCAB
from tests.model.exchange.test_pretrained import write
from tuner.cli import main
from tuner.knowledge import library
from tuner.knowledge.library import Library
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
    assert "unknown study qqq; valid names: attention, finetune, full_finetune, lm, lm_gpu" in error
    assert main(["init", "../lm"]) == 2
    assert not list(tmp_path.iterdir())
    assert main(["init", "--list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == list(shipped_spaces())
    assert lines[3].split(None, 1)[1].startswith("The default study: a small language model")


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


def test_init_writes_a_fine_tuning_of_a_model(
    tmp_path: Path, tokenizer: Tokenizer, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path / "a model", "llama", vocab_size=VOCAB, context_length=600)
    tokenizer.save(tmp_path / "a model", "huggingface")
    rows = [json.dumps({"id": n, "body": f"document {n} of some words"}) for n in range(3_000)]
    (tmp_path / "rows.jsonl").write_text("\n".join(rows))
    assert main(["init", "finetune", "--model", "a model", "--data", "rows.jsonl"]) == 0
    text = (tmp_path / "finetune.yaml").read_text()
    assert 'data:        {files: ["rows.jsonl"], field: "body"}' in text
    assert "a llama of 13,904 weights in F32, 1 file(s), a context of 600," in text
    capsys.readouterr()
    assert main(["validate", "--space", "finetune.yaml", "--home", "home"]) == 0
    told = capsys.readouterr()
    assert "a model, with a llama of" in " ".join((told.out + told.err).split())


def test_init_refuses_an_example_with_its_line(
    tmp_path: Path, tokenizer: Tokenizer, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path / "m", "llama", vocab_size=VOCAB)
    tokenizer.save(tmp_path / "m", "huggingface")
    rows: list[dict[str, object]] = [{"prompt": "a", "completion": "b"}, {"prompt": "a"}]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    assert main(["init", "finetune", "--model", "m", "--data", "rows.jsonl"]) == 2
    assert "rows.jsonl line 2 has the fields 'prompt', and an example" in capsys.readouterr().err
    (tmp_path / "rows.jsonl").write_text(json.dumps({"messages": [{"role": "user"}]}))
    assert main(["init", "finetune", "--model", "m", "--data", "rows.jsonl"]) == 2
    assert "line 1: message 1 has no content" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["finetune", "--model", "m"], "--model and --data belong together and to finetune: tuner"),
        (["lm", "--model", "m", "--data", "d"], "--model and --data belong together"),
        (
            ["finetune", "--model", "none/here", "--data", "d"],
            "there is no folder none/here; fetch",
        ),
        (["finetune", "--model", "m", "--data", "two.jsonl"], "a row has the fields a, b, and one"),
        (["finetune", "--model", "m", "--data", "bad.jsonl"], "the first row is no JSON"),
        (["finetune", "--model", "m", "--data", "no.jsonl"], "no.jsonl"),
    ],
)
def test_init_refuses_a_fine_tuning_in_one_sentence(
    arguments: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path / "m", "llama")
    (tmp_path / "two.jsonl").write_text('{"a": "x", "b": "y"}\n')
    (tmp_path / "bad.jsonl").write_text("a b\n")
    assert main(["init", *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert len(error.splitlines()) == 1
    assert not (tmp_path / "finetune.yaml").exists()


def texts(folder: Path) -> None:
    folder.mkdir()
    for name in "ab":
        rows = [{"id": n, "body": f"{name}: document {n % 50} of some words"} for n in range(60)]
        (folder / f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows)))


@pytest.mark.parametrize(
    "paths", [["data/a.jsonl", "data/b.jsonl"], ["data/*.jsonl"], ["data"]], ids=len
)
def test_init_looks_at_data_and_writes_a_space(
    tmp_path: Path, paths: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    texts(tmp_path / "data")
    assert main(["init", *paths, "--plain", "--json"]) == 0
    told = capsys.readouterr()
    value = json.loads(told.out)
    assert value["file"] == str(tmp_path / "data.yaml")
    assert (value["documents"], value["duplicates"], value["scripts"]) == (120, 20, {"Latin": 1.0})
    assert "20 documents (17 %) equal an earlier one" in told.err
    assert "'tuner search --space data.yaml' runs it" in told.err
    space = load_space("data.yaml")
    assert space.data.field == "body"
    assert main(["validate", "--space", "data.yaml", "--home", "home"]) == 0
    assert main(["init", *paths, "--plain"]) == 2
    assert "data.yaml exists already; --force replaces it" in capsys.readouterr().err


def test_init_writes_suggested_values(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """By published laws alone, which takes no time."""
    monkeypatch.setattr(library, "collect", lambda home, names: Library())
    (tmp_path / "my notes.txt").write_text("some words of a text. " * 20_000)
    assert main(["init", "my notes.txt"]) == 0
    assert "suggested, as priors of the search: α_max " in capsys.readouterr().err
    space = load_space("my-notes.yaml")
    prior = space.hyperparameters["max_learning_rate"].prior
    assert prior is not None
    assert 1e-4 < float(prior.centre) < 3e-2


def test_init_takes_a_pretrained_model_and_a_file(
    tmp_path: Path, tokenizer: Tokenizer, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path / "m", "llama", vocab_size=VOCAB, context_length=600)
    tokenizer.save(tmp_path / "m", "huggingface")
    texts(tmp_path / "data")
    assert main(["init", "./m", "data/a.jsonl"]) == 0
    assert "60 documents, half of them longer than" in capsys.readouterr().err
    assert 'init_from:   {huggingface: "./m"}' in (tmp_path / "finetune.yaml").read_text()
    assert main(["init", "./m", "data/a.jsonl", "data/b.jsonl"]) == 2
    assert "./m is a pretrained model, which is fine-tuned on one file" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["no.txt"], "cannot read no.txt: No such file or directory"),
        (["lm", "more.txt"], "more.txt is one name too many: give a study, or files of your own"),
        (["short.txt"], "the text has 6 bytes, and a search needs 2,000 at least; add text"),
        (["short.txt", "--model", "m"], "--model and --data belong to finetune"),
        (["two.jsonl"], "two.jsonl: a row has the fields a, b, and one is needed"),
        (["x.pdf"], "pdftotext"),
    ],
)
def test_init_refuses_data_in_one_sentence(
    arguments: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "short.txt").write_text("short\n")
    (tmp_path / "two.jsonl").write_text('{"a": "x", "b": "y"}\n')
    (tmp_path / "x.pdf").write_bytes(b"%PDF")
    assert main(["init", *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error.splitlines()[-1]
    assert not list(tmp_path.glob("*.yaml"))
