"""States of trials in storage: sent in the background, newest first, fetched where they lack."""

from __future__ import annotations

import stat
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.tuner.storage.broken import Switch, fresh_url, switched
from tuner.errors import StorageError
from tuner.storage import states as module
from tuner.storage.states import States, keep_only, present_state
from tuner.storage.storage import Storage


@pytest.fixture(autouse=True)
def _no_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_FIRST_PAUSE_SECONDS", 0.01)
    monkeypatch.setattr(module, "_POLL_SECONDS", 0.01)
    monkeypatch.setattr(module, "_SENDING_SECONDS", 0.05)
    monkeypatch.setattr(module, "_DOWN_SECONDS", 0.1)


class Node:
    """A worker's states on a disk of its own."""

    def __init__(self, url: str, folder: Path) -> None:
        folder.mkdir()
        self.states = States(url, folder / "checkpoints", folder / "starts")
        self.switch: Switch = switched(self.states._storage)

    def save(self, trial: str, step: int) -> None:
        path = self.states.folder / trial / f"{step:09d}.safetensors"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(f"{trial} {step}".encode())
        self.states.saved(trial, path)

    def here(self) -> list[str]:
        return sorted(path.read_text() for path in self.states.folder.glob("*/*"))


@pytest.fixture
def url() -> str:
    return fresh_url()


@pytest.fixture
def node(url: str, tmp_path: Path) -> Node:
    return Node(url, tmp_path / "one")


def there(url: str) -> list[str]:
    storage = Storage(url)
    return [storage.read(name).decode() for name in storage.files("checkpoints")]


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_newest_state_is_sent_and_old_ones_are_deleted(node: Node, url: str) -> None:
    for step in (10, 20, 30):
        node.save("7", step)
        assert node.states.wait(5) == 0
    node.save("8", 10)
    node.states.prune("7", 30)
    assert node.states.wait(5) == 0
    assert there(url) == ["7 20", "7 30", "8 10"]  # two, as on the disk: the newest may be damaged
    node.states.delete("7")
    assert node.states.wait(5) == 0
    assert there(url) == ["8 10"]


def test_states_that_other_trials_need_stay(node: Node, url: str) -> None:
    for step in (10, 20, 30, 40):
        node.save("7", step)
        assert node.states.wait(5) == 0
    node.states.prune("7", 40, (10,))
    assert node.states.wait(5) == 0
    assert there(url) == ["7 10", "7 30", "7 40"]
    node.states.prune("7", 40)
    assert node.states.wait(5) == 0
    assert there(url) == ["7 30", "7 40"]


def test_storage_that_is_down_gets_the_newest_states_later(node: Node, url: str) -> None:
    """Nobody waits for it, and states that others have replaced are not sent."""
    node.switch.is_down = True
    for step in (10, 20, 30):
        for trial in ("7", "8"):
            node.save(trial, step)
    node.save("9", 10)
    node.states.delete("9")
    (node.states.folder / "8" / "000000030.safetensors").unlink()  # pruned before it was sent
    assert node.states.wait(0.05) > 0
    node.switch.is_down = False
    assert node.states.wait(5) == 0
    assert there(url) == ["7 30"]


def test_state_is_fetched_by_a_worker_that_lacks_it(node: Node, url: str, tmp_path: Path) -> None:
    for step in (10, 20):
        node.save("7", step)
        node.states.wait(5)
    other = Node(url, tmp_path / "two")
    other.states.fetch_all(("7", 20), None)
    assert other.here() == ["7 20"]
    other.switch.calls.clear()
    other.states.fetch("7", 20)
    assert not other.switch.calls  # it is here
    third = Node(url, tmp_path / "three")
    third.states.fetch("7", 15)  # the journal may be a little behind
    assert third.here() == ["7 10"]
    third.states.fetch("7", 5)
    third.states.fetch("9", 10)  # it was lost: the trial begins anew
    assert third.here() == ["7 10"]
    other.save("7", 30)  # old states of other workers are deleted too
    other.states.prune("7", 30)
    other.states.wait(5)
    assert there(url) == ["7 20", "7 30"]


def test_state_on_its_way_is_waited_for(node: Node, url: str, tmp_path: Path) -> None:
    module._SENDING_SECONDS = 5.0  # put back by the fixture
    other = Node(url, tmp_path / "two")
    fetch = threading.Thread(target=other.states.fetch, args=("7", 10))
    fetch.start()
    until(lambda: "ls" in other.switch.calls)
    node.save("7", 10)
    fetch.join(5)
    assert other.here() == ["7 10"]


def test_fetch_gives_up_a_storage_that_is_down(node: Node, tmp_path: Path) -> None:
    node.switch.is_down = True
    node.states.fetch("7", 10)
    with pytest.raises(StorageError, match="it was switched off"):
        node.states.fetch_all(None, "abc")
    node.switch.is_down = False
    node.states.fetch_start("abc")  # nobody has it: the engine says so
    node.states._storage.write("starts/abc.safetensors", b"weights")
    node.states.fetch_start("abc")
    assert (tmp_path / "one" / "starts" / "abc.safetensors").read_bytes() == b"weights"


def test_node_without_the_home_has_a_private_folder(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    (tmp_path / "tmp").mkdir()
    home = tmp_path / "no" / "such" / "home"
    first, second = (States(url, home / "checkpoints", home / "starts") for _ in range(2))
    assert first.folder == second.folder != States(url + "x", home / "c", home / "s").folder
    assert not home.exists()
    private = first.folder.parent
    assert private.parent == tmp_path / "tmp"
    assert stat.S_IMODE(private.stat().st_mode) == 0o700
    first.forget()
    assert not private.exists()
    private.mkdir(mode=0o777)
    private.chmod(0o777)  # somebody else may have made it, and change what is in it
    assert States(url, home / "checkpoints", home / "starts").folder.parent != private


def test_worker_without_storage_sends_nothing(tmp_path: Path) -> None:
    states = States("", tmp_path / "no" / "checkpoints", tmp_path / "no" / "starts")
    assert states.folder == tmp_path / "no" / "checkpoints"
    assert not states.has_storage
    states.saved("1", tmp_path)
    states.prune("1", 2)
    states.delete("1")
    assert states.wait(0.0) == 0


def test_kept_states_come_from_storage_and_the_others_go(
    node: Node, url: str, tmp_path: Path
) -> None:
    for trial in ("7", "8"):
        for step in (10, 20):
            node.save(trial, step)
            node.states.wait(5)
    storage, home = Storage(url), tmp_path / "home"
    reported = "/another/disk/checkpoints/7/000000020.safetensors"
    assert present_state(reported, home, None) is None
    path = present_state(reported, home, storage)
    assert path == home / "7" / "000000020.safetensors"
    assert path.read_text() == "7 20"
    for nowhere in ("/x/7/000000030.safetensors", "/x/../journal.jsonl", "/x/7/../y"):
        assert present_state(nowhere, home, storage) is None
    keep_only(storage, [path])
    assert there(url) == ["7 20"]
    assert present_state(reported, tmp_path / "home", None) == path  # it is here now
