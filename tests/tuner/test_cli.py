"""The command line in this process: arguments, exit statuses, messages."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
import time
from importlib import import_module
from pathlib import Path
from typing import get_args

import pytest

from model.errors import CorpusError
from model.spec.data import TokenizerConfig
from model.spec.hyperparameters import SYMBOL_TABLE
from model.tokenizer.pretokenizer import PATTERNS
from model.tokenizer.tokenizer import Tokenizer
from tuner import cli, errors
from tuner.arguments import data as data_arguments
from tuner.arguments.parser import parse
from tuner.arguments.topics import _NEXT, TOPICS, next_step
from tuner.cli import main
from tuner.commands import symbols
from tuner.home.home import Home

LM = str(Path(__file__).parents[2] / "search_spaces" / "lm.yaml")


def test_cli_symbols_prints_the_table(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["symbols"]) == 0
    text = capsys.readouterr().out
    for row in SYMBOL_TABLE.values():
        assert row.symbol in text
        for meaning in row.choice_meanings.values():
            assert " ".join(meaning.split()[:4]) in text
    assert main(["symbols", "--json"]) == 0
    table = json.loads(capsys.readouterr().out)
    assert table["max_learning_rate"]["symbol"] == "α_max"
    assert table["warmup_steps"]["default"] == "0.05·T_total"
    assert "ε outside the root" in table["optimizer"]["choices"]["adagrad"]
    for name, entry in table["model"].items():
        assert name in text
        assert entry["meaning"]
    ranges = {name: entry["range"] for name, entry in table["model"].items()}
    assert ranges["norm_placement"] == "pre | post"
    assert ranges["qk_norm"] == "true | false"
    assert ranges["n_heads"] == "[1, 1024]"
    assert ranges["rope_theta"] == "(1, ∞)"
    assert ranges["logit_soft_cap"] == "[0, 1e+06]"


def test_cli_has_a_handler_for_each_command() -> None:
    for target in cli._COMMANDS.values():
        module, handler = target.rsplit(".", 1)
        assert callable(getattr(import_module(f"tuner.commands.{module}"), handler))


def test_cli_help_has_each_command_in_one_group(capsys: pytest.CaptureFixture[str]) -> None:
    names = [name for topic in TOPICS.values() for name in topic.commands]
    assert sorted(names) == sorted({command.split()[0] for command in cli._COMMANDS})
    with pytest.raises(SystemExit):
        parse(["--help"])
    text = capsys.readouterr().out
    titles = [topic.title for topic in TOPICS.values()]
    assert re.findall(r"^  ([\w ]+):$", text, re.MULTILINE) == titles
    assert re.findall(r"^    (\w+)", text, re.MULTILINE) == names


@pytest.mark.parametrize("topic", TOPICS)
def test_help_of_a_topic_has_its_commands(topic: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["help", topic]) == 0
    text = capsys.readouterr().out
    assert re.findall(r"^  tuner (\w+) +\w", text, re.MULTILINE) == list(TOPICS[topic].commands)


def test_help_has_topics_and_commands(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["help"]) == 0
    assert re.findall(r"^tuner help (\w+) ", capsys.readouterr().out, re.MULTILINE) == [
        *TOPICS, "COMMAND",
    ]  # fmt: skip
    assert main(["help", "export"]) == 0
    assert "--format {hf,gguf,torch,peft}" in capsys.readouterr().out
    assert main(["help", "serach"]) == 2
    assert "unknown topic serach; did you mean search?" in capsys.readouterr().err


def test_next_step_is_a_command_with_the_options_as_given() -> None:
    """Each is parsed as it stands, with a search, a run or a folder in place of capitals."""
    examples = {
        "data prepare": ["--space", "lm"], "data info": ["--space", "lm"],
        "data sample": ["--space", "lm"], "validate": ["--space", "lm"],
        "suggest": ["--space", "lm"], "tokenizer train": ["x.txt"], "export": ["-o", "out"],
        "compare": ["lm-1/1", "lm-1/2"], "logs": ["lm-1"], "restore": ["x.tgz"],
        "backup": ["x.tgz"], "delete": ["lm-1"], "login": ["https://tuner.example"],
    }  # fmt: skip
    for name in _NEXT:
        options = parse([*name.split(), *examples.get(name, [])])
        if hasattr(options, "home"):
            options.home = "my home"
        step = next_step(options)
        assert step is not None
        for line in re.findall(r"tuner [^;,]+", step):
            words = line.replace("NAME", "lm-1").replace("RUN", "lm-1/3").split("#")[0]
            parse(shlex.split(words)[1:])
        if "{home}" in _NEXT[name]:
            assert "--home 'my home'" in step
    assert next_step(parse(["show", "--json"])) is None
    assert next_step(parse(["suggest", "--record"])) is None
    assert next_step(parse(["show", "--yaml"])) is None


def test_next_step_is_said_to_people_alone(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["symbols"]) == 0
    assert "Next:" not in capsys.readouterr().err
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    assert main(["symbols"]) == 0
    assert capsys.readouterr().err.endswith("Next: tuner init\n")
    assert main(["symbols", "--json"]) == 0
    assert "Next:" not in capsys.readouterr().err


def test_cli_names_an_option_once(capsys: pytest.CaptureFixture[str]) -> None:
    """It once said "--set data: data: cannot read"."""
    assert main(["validate", "--space", LM, "--set", "data={files: missing.txt}"]) == 2
    assert capsys.readouterr().err.startswith("--set data: cannot read ")


def test_cli_validate_explains_space(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    home = tmp_path / "home"
    assert main(["validate", "--space", LM, "--home", str(home), "--json"]) == 0
    out, err = capsys.readouterr()
    assert not home.exists()  # validating writes nothing
    assert json.loads(out)["micro_batch"] == 8
    for expected in ("α_max", "log-uniform", "one of 8, 16, 32", "training sequences", "tokens"):
        assert expected in err, expected


def test_cli_validate_writes_conditions_as_the_file_does(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    space = tmp_path / "space.yaml"
    space.write_text(
        "budget: {tokens: 100_000}\nmodel: {qk_norm: {choice: [true, false]}}\nhyperparameters:\n"
        "  p_drop: {choice: [0.0, 0.1], when: {qk_norm: true}}\n"
        "  β2: {choice: [0.5, 0.95]}\n  β1: {uniform: [0.8, 0.9], when: {β2: [0.5, 0.95]}}\n"
    )
    assert main(["validate", "--space", str(space), "--home", str(tmp_path / "home")]) == 0
    lines = [line.rstrip() for line in capsys.readouterr().out.splitlines()]
    assert any(line.endswith("  qk_norm true") for line in lines)
    assert any(line.endswith("  β2 0.5, 0.95") for line in lines)


@pytest.mark.parametrize("command", ["search", "validate"])
def test_cli_refuses_a_bad_space_quickly(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, command: str
) -> None:
    space = tmp_path / "bad.yaml"
    space.write_text("hyperparameters:\n  α_maxx: {log: [0, 1]}\nbudgets: {tokens: 1}\n")
    home = tmp_path / "home"
    started = time.thread_time()
    assert main([command, "--space", str(space), "--home", str(home)]) == 2
    assert time.thread_time() - started < 1
    error = capsys.readouterr().err
    lines = error.splitlines()
    assert [line.split(" ")[0] for line in lines] == [f"{space}:2:3", f"{space}:3:1"]
    assert "α_max" in error
    assert "Traceback" not in error
    assert not home.exists()


def test_cli_usage_errors_have_status_2(capsys: pytest.CaptureFixture[str]) -> None:
    for wrong in (
        [], ["serch"], ["search"], ["ui", "--port", "0"], ["ui", "--port", "x"],
        ["search", "--space", LM, "--trials", "0"], ["search", "--space", LM, "--name", "a b"],
        ["search", "--space", LM, "--seed", "-1"],
    ):  # fmt: skip
        with pytest.raises(SystemExit) as stop:
            main(wrong)
        assert stop.value.code == 2
        assert "error: " in capsys.readouterr().err


def test_cli_alone_lists_the_commands(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main([])
    assert stop.value.code == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert "find the best hyperparameters" in err
    assert err.splitlines()[-1] == "tuner: error: give a COMMAND"


def test_cli_search_without_space_shows_its_own_usage(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["search"])
    error = capsys.readouterr().err
    assert error.startswith("usage: tuner search ")
    assert "tuner search: error: --space FILE is missing" in error


def test_cli_quiet_search_has_no_view(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    views = []

    def stop(*_: object, view: object, **__: object) -> None:
        views.append(view)
        raise errors.ResultError("no trial finished")

    monkeypatch.setattr("tuner.driver.search.search", stop)
    for options in ([], ["--quiet"]):
        assert main(["search", "--space", LM, "--home", str(tmp_path), *options]) == 1
    assert [view is None for view in views] == [False, True]


@pytest.mark.slow
@pytest.mark.parametrize(
    "command",
    [
        "list",
        "show",
        "compare lm-1/0 lm-1/1",
        "replay",
        "report",
        "generate",
        "export -o x",
        "ui",
        "sync",
    ],
)
def test_cli_refuses_a_home_that_is_none_and_creates_nothing(
    command: str,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.delenv("TUNER_HOME", raising=False)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    for home, reason in ((tmp_path / "empty", "it has no mlflow.db"), (None, "no such folder")):
        options = ["--home", str(home)] if home else []
        assert main([*command.split(), *options]) == 2
        error = capsys.readouterr().err
        assert error.startswith(f"tuner {command.split()[0]}: no search is recorded in {tmp_path}")
        assert reason in error
        assert "start one with 'tuner search'" in error
        assert "--home" in error
        assert len(error.splitlines()) == 1
    assert [path.name for path in tmp_path.rglob("*")] == ["empty"]


def test_choices_of_options_are_those_of_the_registries(tmp_path: Path) -> None:
    assert set(data_arguments.PATTERNS) == set(
        get_args(TokenizerConfig.model_fields["pattern"].annotation)
    )
    assert set(data_arguments.PATTERNS) < set(PATTERNS)  # the others are read, not trained
    tokenizer = Tokenizer({i: bytes([i]) for i in range(256)}, [])
    written = [tokenizer.save(tmp_path / name, name) for name in data_arguments.TOKENIZER_FORMATS]
    assert all(path.exists() for paths in written for path in paths)
    with pytest.raises(ValueError, match="the format must be") as error:
        tokenizer.save(tmp_path, "none")
    names = set(re.findall(r"\w+", str(error.value).partition("must be ")[2]))
    assert names - {"or", "got", "none"} == set(data_arguments.TOKENIZER_FORMATS)


class PairsError(CorpusError):
    """Subclass that the command line does not name."""


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (errors.RecordError("gone"), 2),
        (errors.StoreError("locked"), 2),
        (errors.ResultError("no trial finished"), 1),
        (CorpusError("empty"), 2),
        (PairsError("no target"), 2),
        (KeyboardInterrupt(), 130),
    ],
)
def test_cli_statuses(
    error: BaseException,
    status: int,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(options: object) -> int:
        raise error

    monkeypatch.setattr(symbols, "run_symbols", fail)
    assert main(["symbols"]) == status
    assert "Traceback" not in capsys.readouterr().err
    if isinstance(error, Exception):
        with pytest.raises(type(error)):
            main(["symbols", "--debug"])


def test_cli_shows_the_traceback_of_a_bug(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(symbols, "run_symbols", lambda options: 1 // 0)
    with pytest.raises(ZeroDivisionError):
        main(["symbols"])


def test_home_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(errors.StoreError, match="choose another with --home"):
        Home.at(tmp_path / "file" / "home")


def test_home_store_is_local_by_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert Home.at(tmp_path).tracking_uri == f"sqlite:///{tmp_path}/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:1")
    assert Home.at(tmp_path).tracking_uri == "http://127.0.0.1:1"
    monkeypatch.setenv("TUNER_HOME", str(tmp_path / "other"))
    assert Home.at().root == tmp_path / "other"


@pytest.mark.slow
def test_public_functions_survive_import_of_modules() -> None:
    """No module of the package may have the name of a public function."""
    code = """
import tuner, tuner.driver.search, tuner.trained.replay
from tuner import export, generate, replay, search
assert callable(search) and callable(replay) and callable(tuner.search)
import tuner.trained.export, tuner.trained.generate
assert callable(tuner.export) and callable(tuner.generate) and callable(tuner.replay)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()


@pytest.mark.parametrize(
    ("option", "text", "value"),
    [
        ("--trials", "1e3", "1000"),
        ("--max-tokens", "2_000_000", "2000000"),
        ("--max-tokens", "9007199254740991", "9007199254740991"),
        ("--max-tokens", "1.5e6", "1500000"),
        ("--max-time", "1h30m", "5400.0"),
        ("--max-time", "1:30:00", "5400.0"),
        ("--max-time", "90", "90.0"),
    ],
)
def test_cli_takes_numbers_as_spaces_do(option: str, text: str, value: str) -> None:
    (override,) = parse(["search", "--space", LM, option, text]).overrides
    assert override.text == value


@pytest.mark.parametrize(
    ("option", "text"),
    [("--trials", "1.5"), ("--trials", "1e400"), ("--seed", "1e-1"), ("--trials", "٣"),
     ("--trials", "9" * 5000), ("--max-time", "1h30"), ("--max-time", "0s")],
)  # fmt: skip
def test_cli_refuses_other_numbers(option: str, text: str) -> None:
    with pytest.raises(SystemExit) as stop:
        parse(["search", "--space", LM, option, text])
    assert stop.value.code == 2


def test_cli_explains_range_of_numbers(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["search", "--space", LM, "--trials", "abc"])
    assert "must be a whole number from 1 to 1000000, got abc" in capsys.readouterr().err
    assert main(["replay", "0" * 32, "--search", "lm-1"]) == 2
    assert "not both" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize(
    "module",
    [
        "tuner.cli",
        "tuner.workers.client",
        "model",
        "tuner.space_file.load",
        "tuner.commands.data",
        "tuner.commands.tokenizer",
    ],
)
def test_light_modules_do_not_load_torch(module: str) -> None:
    """Workers' clients and `tuner --help` must start fast."""
    heavy = "{'torch', 'mlflow', 'optuna'} & set(sys.modules)"
    code = f"import sys, {module}; sys.exit(len({heavy}))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_file_of_somebody_else_is_one_sentence(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """A home whose searches this user may not read; a disk that is full."""

    def refuse(_: object) -> int:
        raise PermissionError(13, "Permission denied", str(tmp_path / "mlflow.db"))

    monkeypatch.setattr("tuner.commands.show.run_list", refuse)
    assert main(["list"]) == 2
    out, err = capsys.readouterr()
    assert (out, err) == ("", f"tuner list: {tmp_path / 'mlflow.db'}: Permission denied\n")
    with pytest.raises(PermissionError):
        main(["list", "--debug"])


def test_security_page_says_what_each_command_does() -> None:
    """A row of its table for every command: what it reads, writes and runs."""
    page = (Path(__file__).parents[2] / "docs" / "security.md").read_text(encoding="utf-8")
    table = page.partition("| command | reads |")[2].partition("\n\n")[0]
    rows = [line.split("|") for line in table.splitlines()[2:]]
    assert all(len(row) == 6 and all(cell.strip() for cell in row[1:5]) for row in rows)
    named = [name for row in rows for name in re.findall(r"`([a-z]+)`", row[1])]
    assert sorted(named) == sorted({command.split()[0] for command in cli._COMMANDS})
