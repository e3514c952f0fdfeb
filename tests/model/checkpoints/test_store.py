"""The store of checkpoints: the newest undamaged one is found, whatever a kill left."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from model.checkpoints import checkpoint, store
from model.checkpoints.store import CheckpointRef
from model.errors import CheckpointError


def save(folder: Path, step: int, trial_id: str = "7", **more: object) -> Path:
    path = store.checkpoint_path(folder, trial_id, step)
    metadata = {"spec_hash": "h", "step": step, "val_losses": [0.5] * step, **more}
    checkpoint.write(path, {"weights.a": torch.full((2, 3), float(step))}, metadata)
    return path


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def newest_step(folder: Path, step: int = 99) -> int | None:
    """Return the step of the newest checkpoint; check its contents."""
    state = store.read_newest(folder, CheckpointRef("7", step))
    if state is None:
        return None
    assert torch.equal(state.tensors["weights.a"], torch.full((2, 3), float(state.step)))
    assert (state.spec_hash, state.val_losses) == ("h", [0.5] * state.step)
    return state.step


def test_newest_is_at_most_of_the_step(tmp_path: Path) -> None:
    for step in (5, 10, 100):
        save(tmp_path, step)
    save(tmp_path, 50, trial_id="70")
    assert [newest_step(tmp_path, step) for step in (4, 5, 9, 10, 99, 100)] == [
        None,
        5,
        5,
        10,
        10,
        100,
    ]
    assert store.read_newest(tmp_path, CheckpointRef("8", 99)) is None
    assert store.read_newest(tmp_path / "none", CheckpointRef("7", 99)) is None


def cut(data: bytes) -> bytes:
    return data[: len(data) // 2]


def flip_a_tensor(data: bytes) -> bytes:
    return data[:-3] + bytes([data[-3] ^ 4]) + data[-2:]


def flip_what_it_is_about(data: bytes) -> bytes:
    """The step, in the header: 30 becomes 31."""
    place = data.index(b'\\"step\\": 30') + 11
    return data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]


@pytest.mark.parametrize(
    "damage",
    [cut, flip_a_tensor, flip_what_it_is_about, lambda data: b"", lambda data: data + b"0"],
)
def test_damaged_newest_checkpoint_falls_back_to_previous(
    tmp_path: Path, damage: Callable[[bytes], bytes]
) -> None:
    for step in (10, 20, 30):
        path = save(tmp_path, step)
    whole = path.read_bytes()
    assert damage(whole) != whole
    path.write_bytes(damage(whole))
    assert newest_step(tmp_path) == 20
    store.checkpoint_path(tmp_path, "7", 20).write_bytes(b"")
    assert newest_step(tmp_path) == 10
    path.write_bytes(whole)
    assert newest_step(tmp_path) == 30


def test_state_under_another_name_is_passed_over(tmp_path: Path) -> None:
    """A renamed copy still contains its update."""
    save(tmp_path, 10)
    save(tmp_path, 20).rename(store.checkpoint_path(tmp_path, "7", 30))
    assert newest_step(tmp_path) == 10


def test_newest_checkpoint_can_be_required_to_fit(tmp_path: Path) -> None:
    save(tmp_path, 10)
    save(tmp_path, 20, spec_hash="other")
    state = store.read_newest(
        tmp_path, CheckpointRef("7", 99), lambda state: state.spec_hash == "h"
    )
    assert state is not None
    assert state.step == 10


def test_read_refuses_what_is_of_no_trial(tmp_path: Path) -> None:
    checkpoint.write(tmp_path / "x", {}, {"init_from": 3})
    with pytest.raises(CheckpointError, match="but not of a trial"):
        store.read(tmp_path / "x")


# Writes the checkpoint of update 20 and is killed right before the file gets its name.
KILLED = """
import os, signal, sys
from pathlib import Path
from tests.model.checkpoints.test_store import save
Path.replace = lambda *args: os.kill(os.getpid(), signal.SIGKILL)
save(Path(sys.argv[1]), 20)
"""


@pytest.mark.slow
def test_kill_between_writing_and_renaming_leaves_the_state_before(tmp_path: Path) -> None:
    save(tmp_path, 10)
    done = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path)], check=False)
    assert done.returncode == -signal.SIGKILL
    left = [name for name in names(tmp_path / "7") if name != "000000010.safetensors"]
    assert len(left) == 1, "it was killed after writing"
    assert (tmp_path / "7" / left[0]).stat().st_size > 100
    assert newest_step(tmp_path) == 10
    store.delete_partial_files(tmp_path, "7")
    assert names(tmp_path / "7") == ["000000010.safetensors"]
    store.delete_partial_files(tmp_path, "8")


def test_drop_before_keeps_two(tmp_path: Path) -> None:
    for step in (10, 20, 30, 40):
        save(tmp_path, step)
    store.prune(tmp_path, CheckpointRef("7", 10))
    store.prune(tmp_path, CheckpointRef("7", 20))
    assert len(names(tmp_path / "7")) == 4
    store.prune(tmp_path, CheckpointRef("7", 30))
    assert names(tmp_path / "7")[0] == "000000020.safetensors"
    store.prune(tmp_path, CheckpointRef("7", 35))  # not saved: a full disk
    assert [newest_step(tmp_path, step) for step in (29, 39, 99)] == [None, 30, 40]
    store.prune(tmp_path, CheckpointRef("8", 40))


def test_drop_deletes_one_trial(tmp_path: Path) -> None:
    save(tmp_path, 10)
    save(tmp_path, 10, trial_id="70")
    for _ in range(2):
        store.delete(tmp_path, "7")
        assert names(tmp_path) == ["70"]
