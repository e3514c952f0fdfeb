"""Control characters of foreign texts: shown wherever a text reaches a terminal or a page."""

from __future__ import annotations

import io
import json
import logging
import sys
import threading
import warnings
from argparse import Namespace

import pytest
from rich.live import Live
from rich.panel import Panel
from rich.progress import Progress, TextColumn
from rich.text import Text

from tuner.commands.output import confirmed, consoles, print_data, print_json, say
from tuner.errors import TunerError
from tuner.terminal.console import PlainConsole
from tuner.terminal.tables import table
from tuner.texts import secrets
from tuner.texts.control_characters import in_json, in_one_line, visible
from tuner.texts.formatting import shown

EVIL = "a\x1b]0;t\x07\x9b2J\r\x7f\u202eb\u2028[red]c[/red][link=file:x]d[/link]:smile:"
SHOWN = r"a\x1b]0;t\x07\x9b2J\x0d\x7f\u202eb\u2028[red]c[/red][link=file:x]d[/link]:smile:"
RAW = {*"\x1b\x07\x9b\r\x7f\u202e\u2028"}


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def console(stream: io.StringIO) -> PlainConsole:
    return PlainConsole(file=stream, width=200, color_system=None)


def test_control_characters_are_shown() -> None:
    assert visible(EVIL) == SHOWN
    assert visible("naïve\ttext ü 💥 \u200d\nline") == "naïve\ttext ü 💥 \u200d\nline"
    assert visible("\ud800\udcff \u2066\u061c") == r"\ud800\udcff \u2066\u061c"
    assert in_one_line("a\n\tb\x1b") == r"a\n\tb\x1b"
    assert shown(EVIL).startswith(r"a\x1b]0;t\x07")
    assert shown("two\nlines") == "two lines"


def test_json_has_the_same_value_without_control_characters() -> None:
    text = in_json(json.dumps({"a": EVIL}, ensure_ascii=False))
    assert not RAW & {*text}
    assert json.loads(text) == {"a": EVIL}


@pytest.mark.parametrize("is_terminal", [True, False])
def test_console_shows_whatever_is_printed(is_terminal: bool) -> None:
    stream = Terminal() if is_terminal else io.StringIO()
    output = console(stream)
    output.print(EVIL, soft_wrap=True)
    assert stream.getvalue() == f"{SHOWN}\n"
    for renderable in (
        Text(EVIL), Text.assemble(("x", "bold"), EVIL), Panel(EVIL, title=Text(EVIL)),
        table(EVIL, ["head", EVIL], [[EVIL, f"a\n{EVIL}"]]),
    ):  # fmt: skip
        output.print(renderable)
    output.rule(EVIL)
    assert not RAW & {*stream.getvalue()}
    assert stream.getvalue().count(r"\x1b]0;t") == 10
    assert r"a\na\x1b]0;t" in stream.getvalue()


def test_moving_views_show_control_characters() -> None:
    stream = Terminal()
    output = PlainConsole(file=stream, width=200, force_terminal=True)
    with Live(Text(EVIL), console=output, transient=True):
        pass
    with Progress(TextColumn("{task.description}", markup=False), console=output) as bars:
        bars.add_task(EVIL)
    text = stream.getvalue()
    assert r"\x1b]0;t" in text
    assert "\x1b[?25l" in text  # rich moves its cursor
    assert not {"\x1b]", "\x9b", "\x07", "\u202e"} & {
        text[i : i + n] for i in range(len(text)) for n in (1, 2)
    }
    assert "[red]c[/red]" in text


def test_commands_show_control_characters(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for output in consoles(Namespace(json=False)):
        output.print(EVIL, soft_wrap=True)
    say(str(TunerError(EVIL)))
    monkeypatch.setattr("sys.stdin", Terminal("no\n"))
    confirmed(Namespace(yes=False, json=False), EVIL)
    print_json(Namespace(json=True), {"a": EVIL})
    captured = capsys.readouterr()
    assert not RAW & {*captured.out, *captured.err}
    assert captured.err.count(SHOWN) == 3
    assert captured.out.startswith(SHOWN)


def test_python_shows_control_characters(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    for module, name in (
        (sys, "excepthook"), (threading, "excepthook"), (warnings, "formatwarning"),
    ):  # fmt: skip
        monkeypatch.setattr(module, name, getattr(module, name))
    factory = logging.getLogRecordFactory()
    try:
        secrets.mask_output()
        logging.getLogger("tuner.test").warning("%s", EVIL)
        assert caplog.messages == [SHOWN]
        sys.excepthook(ValueError, ValueError(EVIL), None)
        assert SHOWN in warnings.formatwarning(EVIL, UserWarning, "x.py", 1, "")
    finally:
        logging.setLogRecordFactory(factory)
    captured = capsys.readouterr()
    assert captured.err == f"ValueError: {SHOWN}\n"


def test_data_is_unchanged_for_a_program(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    print_data(EVIL)
    assert capsys.readouterr().out == EVIL
    terminal = Terminal()
    monkeypatch.setattr("sys.stdout", terminal)
    print_data(EVIL)
    assert terminal.getvalue() == SHOWN
