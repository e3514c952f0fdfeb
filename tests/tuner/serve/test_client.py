"""Commands against a server say what they say of a home."""

from __future__ import annotations

import io
import json
import stat
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import uvicorn

import tuner
from tests.ports import free_port
from tests.tuner.serve.conftest import SPACE, Place
from tests.tuner.serve.test_operations import PROGRAM
from tuner.cli import main
from tuner.driver.view import SilentView, ViewProjection
from tuner.errors import SpaceError, TunerError
from tuner.jobs.status import SearchStatus
from tuner.journal.follower import Follower
from tuner.serve.access import new_user
from tuner.serve.operations.operations import Operations
from tuner.serve.remote.client import Client, RemoteTail
from tuner.serve.remote.tokens import tokens_file


@pytest.fixture
def url(place: Place, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[str]:
    """The server of the place, listening."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    port = free_port()
    config = uvicorn.Config(
        place.client.app, port=port, log_level="error", lifespan="off", ws="none"
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    until = time.monotonic() + 30
    while not server.started:
        assert time.monotonic() < until
        thread.join(0.01)
    yield f"http://127.0.0.1:{port}"
    server.should_exit = server.force_exit = True
    thread.join()


def test_commands_say_the_same_of_a_server(
    place: Place, url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "space.yaml"
    file.write_text(SPACE % 1)

    def run(*arguments: str) -> str:
        assert main([*arguments]) == 0
        return capsys.readouterr().out

    said = run("submit", "--space", str(file), "--name", "a", "--server", url)
    assert f"tuner attach a --server {url}" in said
    place.dispatcher.tick()
    here = ("--home", str(place.home.root))
    local, remote = run("status", "a", *here), run("status", "a", "--server", url)
    assert _without_rates(local) == _without_rates(remote)
    assert "trials have ended" in local
    log = place.home.log("a")
    log.parent.mkdir(exist_ok=True)
    log.write_text("what the driver says: α\n")
    assert run("logs", "a", "--server", url) == run("logs", "a", *here) != ""
    threading.Timer(0.5, lambda: place.drivers["a"].end("interrupted")).start()
    place.dispatcher.begin()
    stopped = run("stop", "a", "--server", url)
    assert stopped.startswith("a has ended: stopped, ")
    assert run("attach", "a", "--server", url).startswith("a: stopped, ")
    listed = json.loads(run("status", "--json", "--server", url))
    assert [each["name"] for each in listed["searches"]] == ["a"]


@pytest.mark.slow
def test_commands_let_a_server_work(
    place: Place, url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place.submit(name="a")
    place.dispatcher.tick()
    place.client.app.state.operations = Operations(  # type: ignore[attr-defined]
        place.home, place.home.root / "serve", (sys.executable, "-c", PROGRAM)
    )

    def run(*arguments: str, status: int = 0) -> str:
        assert main([*arguments, "--server", url]) == status
        return capsys.readouterr().out

    shown = run("show", "a/0", "--all").splitlines()
    assert shown[0] == "a line"
    assert json.loads(shown[1])["words"][:3] == ["show", "a/0", "--all"]
    page = tmp_path / "page.html"
    assert run("report", "-o", str(page)) == f"wrote {page}: a, 2 trials, 0.0 MB\n"
    assert page.read_text() == "<p>a report"
    replay = run("replay", "--search", "a", status=1)
    assert replay == "trial 3 of a (run 12345678, finished):\ndifferent: by 1\n"
    assert main(["replay", "a/0", "--server", url]) == 2
    assert capsys.readouterr().err == "tuner replay: the data has changed\n"
    folder = tmp_path / "exported"
    exported = run("export", "a/0", "-o", str(folder))
    assert exported.startswith(f"trial 3 of a is in {folder}: 1 files, 0.0 MB, format hf; README")
    assert [path.read_bytes() for path in folder.iterdir()] == [b"weights"]
    assert main(["export", "a/0", "-o", str(folder), "--server", url]) == 2
    assert "holds model.bin, which is not part of an export" in capsys.readouterr().err
    assert run("generate", "--search", "a", "--prompt", "it") == "it is written\n"
    made = json.loads(run("generate", "--search", "a", "--prompt", "it", "--seed", "4", "--json"))
    assert (made["texts"][0]["text"], made["settings"]["seed"]) == (" is written", 4)
    for wrong in (["show", "0123456789"], ["report", "--watch"], ["replay", "--prepared"]):
        assert main([*wrong, "--server", url]) == 2
    fork = Client(url).fork("a", ["search.seed=4"], new_name="b")
    assert fork.name == "b"


def test_validate_says_the_same_of_a_server(
    place: Place, url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def said(*arguments: str) -> tuple[str, str]:
        assert main(["validate", *arguments]) == 0
        return tuple(capsys.readouterr())  # type: ignore[return-value]

    file = tmp_path / "space.yaml"
    file.write_text((SPACE % 1).replace("seed: 1", "seed: 1, scheduler: hyperband"))
    for more in ([], ["--json"], ["--set", "search.trials=7"]):
        local, _ = said("--space", str(file), *more, "--home", str(place.home.root))
        remote, told = said("--space", str(file), *more, "--server", url)
        assert remote == local != ""
        assert f"at {url}: devices are free for it" in told
    file.write_text("budgett: {tokens: 1}\n")
    assert main(["validate", "--space", str(file), "--server", url]) == 2
    assert capsys.readouterr().err == f"{file}:1:1 unknown key budgett; did you mean budget?\n"


def _without_rates(text: str) -> list[str]:
    return [line for line in text.splitlines() if "/s" not in line and "ago" not in line]


def test_journal_is_followed_over_the_network(place: Place, url: str) -> None:
    place.submit(name="a")
    place.dispatcher.tick()
    tail = RemoteTail(Client(url), "a")
    view = SilentView()
    follower = Follower(ViewProjection(view, "a"), tail, from_now=True).start()
    assert follower.flush(10) is None
    assert len(tail.read()) == 0
    place.drivers["a"].end("finished")
    assert follower.close(10) is None
    assert [entry.event.event for entry in RemoteTail(Client(url), "a").read()][-1] == "end"


def test_mistakes_and_refusals_are_one_sentence(
    place: Place, url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "space.yaml"
    file.write_text("budgett: {tokens: 1}\n")
    assert main(["submit", "--space", str(file), "--server", url]) == 2
    assert capsys.readouterr().err == (f"{file}:1:1 unknown key budgett; did you mean budget?\n")
    assert main(["status", "none", "--server", url]) == 2
    assert capsys.readouterr().err == "tuner status: there is no search none\n"
    nobody = f"http://127.0.0.1:{free_port()}"
    assert main(["status", "--server", nobody]) == 2
    assert f"the server {nobody} does not answer: Connection refused" in capsys.readouterr().err
    assert main(["status", "--server", "ftp://x"]) == 2
    assert main(["status", "--server", url, "--home", "x"]) == 2
    assert main(["submit", "--space", str(file), "--priority", "high"]) == 2
    assert "give --server" in capsys.readouterr().err
    with pytest.raises(SpaceError):
        Client(url).validate("budgett: 1\n")


def test_login_keeps_a_token_that_the_server_takes(
    place: Place, url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    token = new_user(place.database, "ann", "user")
    with pytest.raises(TunerError, match="a token is missing"):
        next(Client(url).searches())
    monkeypatch.setattr("sys.stdin", io.StringIO("wrong\n"))
    assert main(["login", url]) == 2
    assert not tokens_file().exists()
    monkeypatch.setattr("sys.stdin", io.StringIO(f"{token}\n"))
    assert main(["login", url]) == 0
    assert token not in "".join(capsys.readouterr())
    assert stat.S_IMODE(tokens_file().stat().st_mode) == 0o600
    monkeypatch.setenv("TUNER_SERVER", url)
    client = tuner.Client()
    search = client.submit(SPACE % 1, name="b", priority="high")
    assert (search.owner, search.priority, search.status.state) == ("ann", "high", "waiting")
    assert client.prioritize("b", "low").priority == "low"
    assert client.pause("b").state == "paused"
    assert client.resume("b").state == "waiting"
    assert isinstance(search.status, SearchStatus)
    client.delete("b")
    assert list(client.searches()) == []
