"""A home that somebody else made: what its records hold does not reach a terminal raw."""

from __future__ import annotations

import json
import shutil
import sqlite3
from contextlib import closing

import pytest

from tests.e2e.conftest import Workplace
from tests.tuner.journal_text import chained, events_of

# sets the title, clears the screen, hides a line, turns letters round, opens a link
EVIL = "\x1b]0;t\x07\x1b[2J\x9b8m\u202eabc\x1b]8;;file:x\x1b\\[red]m[/red][link=file:x]n[/link]"
SHOWN = r"\x1b]0;t\x07\x1b[2J\x9b8m\u202eabc\x1b]8;;file:x\x1b\[red]m[/red][link=file:x]n[/link]"
ROWS = (
    ("UPDATE tags SET value = value || ? WHERE key IN ('device', 'torch', 'status', 'sampler')",),
    ("UPDATE tags SET value = value || ? WHERE key = 'tuner.search' AND value = 'cut-1'",),
    ("UPDATE params SET value = value || ? WHERE key IN ('optimizer', 'max_learning_rate')",),
    ("UPDATE runs SET name = ?",),
    ("INSERT INTO tags SELECT 'tuner.init_from', ?, run_uuid FROM tags WHERE key = 'tuner.kind'",),
    ("INSERT INTO params SELECT 'evil', ?, run_uuid FROM tags WHERE key = 'tuner.trial'",),
    (
        "INSERT INTO latest_metrics SELECT 'best_' || ?, 1.0, 0, 0, 0, run_uuid FROM tags "
        "WHERE key = 'tuner.kind'",
    ),
)  # fmt: skip


@pytest.fixture(scope="module")
def hostile(golden: Workplace, tmp_path_factory: pytest.TempPathFactory) -> Workplace:
    """A home with hostile texts in its store, its data and a space, and without journals."""
    place = Workplace(tmp_path_factory.mktemp("hostile") / "place")
    shutil.copytree(golden.folder, place.folder)
    place.tuner("list")  # corrects the paths
    for journal in place.home.rglob("journal.jsonl"):
        journal.unlink()
    with closing(sqlite3.connect(place.home / "mlflow.db")) as store, store:
        for (statement,) in ROWS:
            store.execute(statement, (EVIL,))
    name = f"{EVIL.replace('/', '')}.txt"
    (place.folder / "texts" / name).write_text("a long text, " * 500)  # the largest one is named
    space = (place.folder / "small.yaml").read_text(encoding="utf-8")
    escaped = json.dumps(EVIL)
    (place.folder / "evil.yaml").write_text(
        space.replace("budget:", f"{escaped}: {escaped}\nbudget:", 1), encoding="utf-8"
    )
    return place


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        (("list",), 0),
        (("list", "--json"), 0),
        (("show", "--search", "small-1"), 0),
        (("show", "--search", "small-1", "--json"), 0),
        (("show", "--search", "small-1", "--by", "optimizer"), 0),
        (("show", "small-1/1"), 2),
        (("compare", "small-1/0", "small-1/1"), 2),
        (("replay", "small-1/1"), 2),
        (("delete", "small-1"), 2),
        (("validate", "--space", "evil.yaml"), 2),
        (("data", "prepare", "--space", "small.yaml"), 0),
        (("show", "--search", EVIL), 2),
        (("export", EVIL, "-o", "x"), 2),
        (("sync", "--set", EVIL), 2),
        (("generate", "--samples", EVIL), 2),
    ],
    ids=lambda value: "-".join(value).replace(EVIL, "EVIL") if isinstance(value, tuple) else "",
)
def test_commands_show_hostile_texts(
    hostile: Workplace, arguments: tuple[str, ...], status: int
) -> None:
    run = hostile.tuner(*arguments)
    assert run.status == status, run.err
    raw = {c for c in run.out + run.err if not c.isprintable()} - {"\n"}
    assert not raw
    if "--json" in arguments:
        assert json.dumps(EVIL)[1:-1] in json.dumps(run.json)  # the value is unchanged
    elif status == 0:
        assert SHOWN in run.out or SHOWN.replace("/", "") in run.out  # the name of a file


@pytest.mark.slow
def test_csv_is_data_for_a_program(hostile: Workplace) -> None:
    run = hostile.tuner("show", "--search", "small-1", "--csv")
    assert run.status == 0, run.err
    assert EVIL in run.out


@pytest.mark.slow
def test_trial_of_a_journal_shows_hostile_texts(hostile: Workplace, golden: Workplace) -> None:
    """Somebody made a journal whose lines fit, and no digest is recorded with it."""
    events = events_of(golden.home / "searches" / "small-1" / "journal.jsonl")
    for event in events:
        if event["event"] == "session":
            event["environment"]["device"] += EVIL
    (hostile.home / "searches" / "small-1" / "journal.jsonl").write_bytes(chained(events))
    with closing(sqlite3.connect(hostile.home / "mlflow.db")) as store, store:
        store.execute("DELETE FROM tags WHERE key = 'tuner.journal'")
    for command in (("show", "small-1/1"), ("compare", "small-1/0", "small-1/1")):
        run = hostile.tuner(*command)
        assert run.status == 0, run.err
        assert not {c for c in run.out + run.err if not c.isprintable()} - {"\n"}
        assert (SHOWN in run.out) == (command[0] == "show")


@pytest.mark.slow
def test_report_shows_hostile_texts(hostile: Workplace, golden: Workplace) -> None:
    shutil.copytree(golden.home / "searches", hostile.home / "searches", dirs_exist_ok=True)
    run = hostile.tuner("report", "--search", "small-1", "-o", "report.html")
    assert run.status == 0, run.err
    page = (hostile.folder / "report.html").read_text(encoding="utf-8")
    assert "\x1b" not in page
