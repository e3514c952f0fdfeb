"""Texts of trained trials, and how they are shown."""

from __future__ import annotations

import io
import json
import re
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from rich.console import Console

from model.errors import CorpusError
from model.generation.prompts import Prompt
from model.generation.settings import GenerationSettings
from model.spec.chat import ChatFormat
from model.spec.data import END_OF_TEXT, DataConfig
from tests.conftest import MakeSpec
from tests.tuner.trained.trained_trials import make_trial, speller
from tuner import cli
from tuner.arguments.parser import parse
from tuner.errors import RecordError, TunerError
from tuner.home.home import Home
from tuner.terminal.texts import TextsView, show_texts
from tuner.trained.generate import Piece, cut_note, generate, sample
from tuner.trained.load_trial import TrainedTrial

GREEDY = GenerationSettings(temperature=0, max_tokens=30)
DRAWN = GenerationSettings(temperature=1, top_p=1, max_tokens=20, seed=3)
TEXT = "aé日🙂!"  # 1, 2, 3 and 4 bytes


def test_text_comes_in_whole_characters(make_spec: MakeSpec) -> None:
    pieces = list(generate([speller(make_spec, TEXT)], "", settings=GREEDY))
    assert [piece.text for piece in pieces if piece.text] == list(TEXT)
    assert len(pieces) == len(TEXT.encode()) + 1
    assert [piece.has_ended for piece in pieces] == [*[False] * 11, True]
    assert sum(not piece.has_ended for piece in pieces) == 11


def test_half_a_character_at_the_end_is_marked(make_spec: MakeSpec) -> None:
    for count, text in ((2, "a\ufffd"), (3, "aé"), (7, "aé日\ufffd")):
        settings = GREEDY.model_copy(update={"max_tokens": count})
        assert sample([speller(make_spec, TEXT)], "", settings=settings) == [text]


def test_prompt_is_continued(make_spec: MakeSpec) -> None:
    assert sample([speller(make_spec, "abcdef")], "xyabc", settings=GREEDY) == ["def"]
    assert sample([speller(make_spec, "abcdef")], f"ab{END_OF_TEXT}", settings=GREEDY) == ["abcdef"]


def test_trials_write_as_if_they_were_alone(make_spec: MakeSpec) -> None:
    """Of two architectures, mixed; those of one are a stack."""
    trials = [make_trial(make_spec, n, n_heads=2 + 2 * (n % 2)) for n in range(4)]
    together = sample(trials, "ab", settings=DRAWN)
    assert together == [sample([trial], "ab", settings=DRAWN)[0] for trial in trials]
    assert len(set(together)) == 4


def test_samples_differ_and_the_first_is_that_of_sample(make_spec: MakeSpec) -> None:
    trials = [make_trial(make_spec, n) for n in range(2)]
    texts: dict[tuple[int, int], str] = {}
    for piece in generate(trials, "ab", settings=DRAWN, samples=3):
        key = (piece.trial, piece.sample)
        texts[key] = texts.get(key, "") + piece.text
    assert len(set(texts.values())) == 6
    assert [texts[0, 0], texts[1, 0]] == sample(trials, "ab", settings=DRAWN)


def test_encoder_decoder_reads_a_text(make_spec: MakeSpec) -> None:
    trial = make_trial(make_spec, n_encoder_layers=1, source_length=6)
    first, second = (sample([trial], text, settings=GREEDY) for text in ("abc", "xyz"))
    assert first != second
    with pytest.raises(TunerError, match="trial 0 of lm-1 translates; give it a text to read"):
        generate([trial], "")  # at once, not with the first piece


def test_weights_that_are_not_finite_are_refused(make_spec: MakeSpec) -> None:
    trial = make_trial(make_spec, 7, status="diverged")
    trial.weights["lm_head.weight"][3, 4] = torch.nan
    with pytest.raises(
        RecordError, match=r"trial 7 of lm-1 \(diverged\) has weights that are not finite"
    ):
        sample([trial], "a")


def test_cut_prompt_is_noted(make_spec: MakeSpec) -> None:
    trial = make_trial(make_spec)
    assert cut_note(trial.spec, trial.tokenizer, Prompt("a" * 16)) is None
    note = cut_note(trial.spec, trial.tokenizer, Prompt("a" * 17))
    assert note == "the prompt has 17 tokens, of which the last 16 are read"
    pair = make_trial(make_spec, n_encoder_layers=1, source_length=6)
    assert cut_note(pair.spec, pair.tokenizer, Prompt("a" * 5)) is None
    note = cut_note(pair.spec, pair.tokenizer, Prompt("a" * 6))
    assert note == "the text has 6 tokens, of which the first 5 are read"


# answers ------------------------------------------------------------------------------------------


def answering(make_spec: MakeSpec, text: str) -> TrainedTrial:
    """A `speller` that was tuned on examples: a prompt `b` becomes `|b`, or with `a` before it."""
    trained = speller(make_spec, text)
    template = "|{% for message in messages %}{{ message.content }}{% endfor %}"
    chat = ChatFormat(template=template, end="_")
    data = DataConfig(files=("a.jsonl",), examples=True, chat=chat)
    return replace(trained, spec=trained.spec.model_copy(update={"data": data}))


def test_prompt_is_answered_by_the_chat_template(make_spec: MakeSpec) -> None:
    trial = answering(make_spec, "abcd_ef")  # _ ends answers
    assert sample([trial], "b", settings=GREEDY) == ["cd"]
    assert sample([trial], Prompt("c", system="b"), settings=GREEDY) == ["d"]
    note = cut_note(trial.spec, trial.tokenizer, Prompt("b" * 64, system="a"))
    assert note == "the prompt has 66 tokens, of which the last 64 are read"
    with pytest.raises(CorpusError, match="a model with a chat template"):
        sample([trial, speller(make_spec, "abc")], Prompt("b", system="a"), settings=GREEDY)
    # trials of one architecture whose texts end with other tokens
    other = answering(make_spec, "abcd_ef")
    plain = replace(other, spec=speller(make_spec, "a").spec)
    assert sample([trial, plain], "b", settings=GREEDY) == ["cd", "cd_ef"]


def test_command_answers_or_continues(
    command: Any, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    command.make = answering
    assert command("abcd_ef", "--prompt", "b") == 0
    assert capsys.readouterr().out == "cd\n"
    (tmp_path / "s").write_text("a")
    for system in (["--system", "a"], ["--system-file", str(tmp_path / "s")]):
        assert command("abcd_ef", "--prompt", "c", *system, "--json") == 0
        made = json.loads(capsys.readouterr().out)
        assert (made["prompt"], made["system"]) == ("c", "a")
        assert [(text["text"], text["is_answer"]) for text in made["texts"]] == [("d", True)]
    assert command("abcd_ef", "--prompt", "b", "--raw") == 0
    assert capsys.readouterr().out == "bcd\n"
    assert command("abc", "--prompt", "b", "--raw", "--system", "x") == 2
    assert "leave out --system, or --raw" in capsys.readouterr().err
    command.make = speller
    assert command("abc", "--prompt", "b", "--system", "x") == 2
    assert "trial 0 of lm-1 reads no messages; --system is for" in capsys.readouterr().err
    assert command.asked == ["abcd_ef"] * 4


# how they are shown -------------------------------------------------------------------------------


def shown(
    texts: list[str], prompt: str = "It ", *, width: int = 100, terminal: bool = True
) -> tuple[str, list[str]]:
    """All that was printed of texts that came character by character, and the texts."""
    out = io.StringIO()
    console = Console(
        file=out,
        width=width,
        height=24,
        force_terminal=terminal,
        no_color=True,
        legacy_windows=False,
    )
    pieces = [
        Piece(number, 0, character, has_ended=False)
        for number, text in enumerate(texts)
        for character in text
    ]
    view = TextsView(console, [f"trial {n}" for n in range(len(texts))], [prompt] * len(texts))
    assert show_texts(view, pieces, 1) == (len(pieces), [len(text) for text in texts])
    return out.getvalue(), view.texts


def test_one_text_is_streamed_as_it_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[str] = []

    class Stream(io.StringIO):
        def flush(self) -> None:
            written.append(self.getvalue())

    console = Console(file=Stream(), force_terminal=False)
    with TextsView(console, ["trial 0"], ["It "]) as view:
        view.add(0, Piece(0, 0, "was", has_ended=False))
    assert written == ["It ", "It was", "It was\n"]


def test_terminal_is_not_moved_by_a_text() -> None:
    text = "a\x1b[2Jb\x9bc\rd\x07\te\n"
    assert shown([text])[0] == "It a\\x1b[2Jb\\x9bc\\x0dd\\x07\te\n\n"
    assert shown([text], terminal=False)[0] == f"It {text}\n"
    both, kept = shown([text, text])
    assert "\x1b[2J" not in both
    assert "\x9b" not in both
    assert kept == [text, text]


def test_several_texts_in_a_pipe_are_sections() -> None:
    out, _ = shown(["one\nline", "two"], terminal=False)
    assert out == "── trial 0 ──\nIt one\nline\n\n── trial 1 ──\nIt two\n"


@pytest.mark.parametrize(("width", "columns"), [(30, 1), (87, 1), (88, 2), (140, 3), (400, 3)])
def test_several_texts_are_side_by_side_on_terminal(width: int, columns: int) -> None:
    """As many as fit; narrow terminals get one below the other."""
    texts = [f"text {number} " + "word " * 30 for number in range(3)]
    out, _ = shown(texts, width=width)
    final = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", out[out.rindex("\x1b[?25h") :])
    lines = [line for line in final.splitlines() if "╭" in line]
    assert [line.count("╭") for line in lines] == [columns] * (3 // columns) + [3 % columns] * bool(
        3 % columns
    )
    assert max(map(len, final.splitlines())) <= width
    for number in range(3):
        assert f"trial {number}" in final
        assert f"It text {number}" in final


def test_growing_texts_fit_the_screen() -> None:
    texts = ["line\n" * 200 + "the end"] * 2
    console = Console(file=io.StringIO(), width=60, height=24, force_terminal=True)
    view = TextsView(console, ["trial 0", "trial 1"], ["", ""])
    view.texts[:] = texts
    with console.capture() as capture:
        console.print(view._growing())
    drawn = capture.get()
    assert len(drawn.splitlines()) <= 24
    assert drawn.count("the end") == 2


# the command --------------------------------------------------------------------------------------


@pytest.fixture
def command(make_spec: MakeSpec, monkeypatch: pytest.MonkeyPatch) -> Any:
    """`tuner generate` of trials that are not recorded anywhere: run id = the text it writes."""

    asked: list[str] = []

    def find(run: str | None, search: str | None) -> Any:
        if run == "missing":
            raise RecordError("no trial has the run id missing")
        trained = run_command.make(make_spec, run or "best")
        return SimpleNamespace(
            record=replace(trained.trial, run_id=run or "best"), spec=trained.spec
        )

    def load(run: str, **_: Any) -> Any:
        asked.append(run)
        return run_command.make(make_spec, run)

    trials = SimpleNamespace(of=lambda home: SimpleNamespace(find=find))
    monkeypatch.setattr("tuner.commands.generate.RecordedTrials", trials)
    for module in ("generate", "output"):
        name = f"tuner.commands.{module}.recorded_home"
        monkeypatch.setattr(name, lambda options: Home.of())
    monkeypatch.setattr("tuner.trained.load_trial.load_trial", load)

    def run(*arguments: str) -> int:
        return cli.main(["generate", "--temperature", "0", *arguments])

    run_command: Any = run
    run_command.asked, run_command.make = asked, speller
    return run


def test_command_finds_all_trials_before_loading(
    command: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command("--runs", "abc", "missing") == 2
    assert "no trial has the run id missing" in capsys.readouterr().err
    assert command.asked == []


def test_command_streams_to_standard_output(
    command: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command("héllo".replace("l", "", 1)) == 0
    out, err = capsys.readouterr()
    assert out == "hélo\n"
    title, speed = err.splitlines()
    assert title == "trial 0 of lm-1, val_loss 2.5000, run 00000000"
    assert speed.startswith("5 tokens, ")


def test_command_takes_the_prompt_from_anywhere(
    command: Any,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "prompt.txt").write_text("a", encoding="utf-8")
    monkeypatch.setattr(sys, "stdin", io.StringIO("a"))
    for options in (["--prompt", "a"], ["--prompt", "-"], ["--file", str(tmp_path / "prompt.txt")]):
        assert command("abc", *options) == 0
        assert capsys.readouterr().out == "abc\n"
    assert command("abc", "--prompt", "\udce9a") == 0
    assert capsys.readouterr().out == "\ufffdabc\n"
    assert command("abc", "--file", str(tmp_path)) == 2
    assert f"cannot read {tmp_path}: Is a directory" in capsys.readouterr().err
    (tmp_path / "latin.txt").write_bytes(b"caf\xe9")
    assert command("abc", "--file", str(tmp_path / "latin.txt")) == 2
    assert "is not UTF-8 text (byte 3)" in capsys.readouterr().err


def test_command_prints_one_json_object(command: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert command("--runs", "abc", "xyz", "--samples", "2", "--seed", "4", "--json") == 0
    out, err = capsys.readouterr()
    output = json.loads(out)
    assert [(text["text"], text["sample"], text["tokens"]) for text in output["texts"]] == [
        ("abc", 0, 3), ("abc", 1, 3), ("xyz", 0, 3), ("xyz", 1, 3),
    ]  # fmt: skip
    assert output["settings"]["seed"] == 4
    assert output["settings"]["temperature"] == 0
    assert "── trial 0 of lm-1, val_loss 2.5000, run 00000000, sample 2 ──\nxyz\n" in err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["abc", "--search", "lm-1"], "give a run id or --search, not both"),
        (["abc", "--runs", "x"], "give a run id, --search or --runs, not several of them"),
        (["--search", "x", "--runs", "x"], "give a run id, --search or --runs, not several"),
    ],
)
def test_command_refuses_trials_that_are_named_twice(
    command: Any, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    assert command(*arguments) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("--temperature", "-1", "must be a number from 0 to 1000, got -1"),
        ("--temperature", "hot", "must be a number from 0 to 1000, got hot"),
        ("--temperature", "nan", "must be a number from 0 to 1000, got nan"),
        ("--top-p", "1.5", "must be a number from 1e-09 to 1, got 1.5"),
        ("--max-tokens", "0", "must be a whole number from 1"),
        ("--samples", "0", "must be a whole number from 1 to 64, got 0"),
    ],
)
def test_command_checks_numbers(
    capsys: pytest.CaptureFixture[str], option: str, value: str, message: str
) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(["generate", option, value])
    assert ended.value.code == 2
    assert message in capsys.readouterr().err


def test_command_help_shows_defaults(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse(["generate", "--help"])
    words = " ".join(capsys.readouterr().out.split())
    for name, value in GenerationSettings().model_dump().items():
        option = words[words.rindex(f"--{name.replace('_', '-')} ") :]
        assert f"(default: {value:g}" in option[: option.index(")") + 1]
