"""Names of searches and trials, at the command line and in Python."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

import tuner
from tuner.cli import main
from tuner.driver.sync import sync
from tuner.errors import RecordError, TunerError
from tuner.home.home import Home
from tuner.home.names import check_name, check_new_name, check_run_name
from tuner.space.space import SearchSpace
from tuner.tracking.record import Record

BAD = (
    "",
    "  ",
    "../lm-1",
    "..",
    ".lm-1",
    "lm/1/",
    "lm\\1",
    "lm\n1",
    "\x1b[31mlm",
    "/tmp/lm-1",
    "-lm",
    "--home",
    "$(id)",
    "`id`",
    "a;id",
    "a&",
    "a|b",
    "a>b",
    "a'b",
    'a"b',
    "a*",
    "#a",
    "~",
)


@pytest.mark.parametrize("name", BAD)
def test_names_that_are_paths_are_refused(name: str) -> None:
    for check in (check_name, check_new_name, check_run_name):
        with pytest.raises(RecordError) as error:
            check(name)
        assert len(str(error.value).splitlines()) == 1


def test_names_that_are_empty_suggest_a_variable() -> None:
    with pytest.raises(RecordError, match="the name of a search is empty; is a shell variable"):
        check_name("")
    with pytest.raises(RecordError, match="the name of a trial is empty"):
        check_run_name("lm-1/")


@pytest.mark.parametrize("name", ["lm-1", "größe_2.1", "1", "an old name", "lm:1"])
def test_names_of_recorded_searches_are_accepted(name: str) -> None:
    assert check_name(name) == name
    assert check_run_name(f"{name}/13") == f"{name}/13"


@pytest.mark.parametrize("name", ["a b", "_lm", "lm:1", "x" * 101])
def test_new_names_are_plain(name: str) -> None:
    with pytest.raises(RecordError):
        check_new_name(name)


@pytest.mark.parametrize(
    "command",
    [
        "show ▲", "show --search ▲", "show --by B --search ▲", "replay ▲", "replay --search ▲",
        "export ▲ -o x", "export --search ▲ -o x", "generate ▲", "generate --search ▲",
        "generate --runs lm-1/1 ▲", "report --search ▲", "compare lm-1/1 ▲", "sync ▲",
        "ui --search ▲", "search --resume ▲", "search --space lm.yaml --name ▲",
    ],
)  # fmt: skip
@pytest.mark.parametrize("name", ["", "../lm-1", ".lm"])
def test_every_command_refuses_bad_names(
    command: str, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [name if word == "▲" else word for word in command.split()]
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == 2
    assert ("is a shell variable unset?" in capsys.readouterr().err) == (name == "")


@pytest.mark.parametrize("name", ["", "../searches/lm-1"])
def test_python_refuses_bad_names(name: str, tmp_path: Path, store: str) -> None:
    """A path once went through, and resuming it recorded a second search of that name."""
    home = Home(tmp_path, store)
    (tmp_path / "searches" / "lm-1").mkdir(parents=True)
    record = Record(store)
    calls: list[Callable[[], object]] = [
        lambda: tuner.search(SearchSpace(), name=name, home=home),
        lambda: tuner.resume(name, home=home),
        lambda: tuner.load_search(name, home=home),
        lambda: tuner.replay(search=name, home=home),
        lambda: tuner.replay(f"{name}/1", home=home),
        lambda: tuner.load_trial("", home=home),
        lambda: sync(home, name),
        lambda: record.search(name),
    ]
    for call in calls:
        with pytest.raises(TunerError, match=r"is empty; is a shell|has a path separator"):
            call()
