"""Checkpoints are complete, verified, and resume bit for bit."""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import pytest
import torch
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import Tensor, nn

from model.checkpoints import checkpoint
from model.checkpoints.module import load_checkpoint, save_checkpoint
from model.errors import CheckpointError
from model.network.transformer import TransformerLM
from model.optimizers.adamw import AdamW

ABOUT = {"step": 3, "name": "α", "nested": {"x": [1.5, None, True]}}


def tensors() -> dict[str, Tensor]:
    return {
        "a": torch.arange(6, dtype=torch.float32).view(2, 3).mT,  # not contiguous
        "b.bf16": torch.tensor([1.5, float("nan")], dtype=torch.bfloat16),
        "c": torch.tensor(7, dtype=torch.int64),
        "d": torch.tensor([True, False]),
        "e": torch.zeros(0, 3),
    }


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """Return the bytes of a small checkpoint."""
    path = tmp_path_factory.mktemp("whole") / "x.safetensors"
    checkpoint.write(path, tensors(), ABOUT)
    return path.read_bytes()


def test_write_and_read_round_trip(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder" / "x.safetensors"
    checkpoint.write(path, tensors(), ABOUT)
    found, metadata = checkpoint.read(path)
    assert metadata == ABOUT
    assert found.keys() == tensors().keys()
    for name, tensor in tensors().items():
        assert found[name].dtype == tensor.dtype
        assert found[name].shape == tensor.shape
        assert torch.equal(found[name].nan_to_num(9), tensor.nan_to_num(9))
    assert [p.name for p in path.parent.iterdir()] == ["x.safetensors"]


@pytest.mark.parametrize("failing", ["fsync", "replace"])
@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_write_that_fails_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: str, error: BaseException
) -> None:
    path = tmp_path / "x.safetensors"
    checkpoint.write(path, tensors(), {"step": 1})

    def fail(*args: object) -> None:
        raise error

    monkeypatch.setattr(*{"fsync": (os, "fsync"), "replace": (Path, "replace")}[failing], fail)
    with pytest.raises(type(error)):
        checkpoint.write(path, {"a": torch.ones(2)}, {"step": 2})
    assert checkpoint.read(path)[1] == {"step": 1}
    assert list(tmp_path.iterdir()) == [path]


def test_write_refuses_values_without_json(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        checkpoint.write(tmp_path / "x", {}, {"loss": float("nan")})
    assert not list(tmp_path.iterdir())


def refuses(path: Path, data: bytes) -> None:
    path.write_bytes(data)
    with pytest.raises(CheckpointError):
        checkpoint.read(path)


@pytest.mark.slow
@settings(max_examples=300)
@given(place=st.floats(0, 1, exclude_max=True), xor=st.integers(1, 255))
def test_read_finds_every_changed_byte(
    tmp_path: Path, whole: bytes, place: float, xor: int
) -> None:
    data, i = bytearray(whole), int(place * len(whole))
    data[i] ^= xor
    # the format pads its header with spaces; other white space has no meaning either
    assume(not (whole[i : i + 1].isspace() and data[i : i + 1].isspace()))
    refuses(tmp_path / "x", bytes(data))


def test_read_finds_every_flipped_bit(tmp_path: Path, whole: bytes) -> None:
    """All of the header and the tensors, one bit of each byte."""
    for place in range(len(whole)):
        data = bytearray(whole)
        data[place] ^= 1 << (place % 8)
        refuses(tmp_path / "x", bytes(data))


@settings(max_examples=300)
@given(share=st.floats(0, 1, exclude_max=True))
@example(share=0.0)
def test_read_finds_every_cut(tmp_path: Path, whole: bytes, share: float) -> None:
    refuses(tmp_path / "x", whole[: int(share * len(whole))])
    refuses(tmp_path / "x", whole + whole[: 1 + int(share * 10)])


def test_read_refuses_what_is_not_ours(tmp_path: Path) -> None:
    path = tmp_path / "x"
    save_file({"a": torch.ones(2)}, path)
    with pytest.raises(CheckpointError, match="not a checkpoint of tuner"):
        checkpoint.read(path)
    save_file({"a": torch.ones(2)}, path, {"format": "tuner/1"})
    with pytest.raises(CheckpointError, match="checksum"):
        checkpoint.read(path)
    torch.save({"a": torch.ones(2)}, path)
    with pytest.raises(CheckpointError, match="damaged or no safetensors file"):
        checkpoint.read(path)
    with pytest.raises(CheckpointError, match=r"cannot read .*missing: No such file"):
        checkpoint.read(tmp_path / "missing")
    with pytest.raises(CheckpointError, match=r"cannot read .*: Is a directory"):
        checkpoint.read(tmp_path)


def test_digest_distinguishes_contents() -> None:
    base = {"a": torch.tensor([1.0, 2.0]), "b": torch.tensor([3.0])}
    others: list[tuple[dict[str, Tensor], str]] = [
        (base, ""),
        (base, "text"),
        ({"b": base["a"], "a": base["b"]}, ""),
        ({"a": base["a"]}, ""),
        ({"a": base["a"].view(2, 1), "b": base["b"]}, ""),
        ({"a": base["a"].view(torch.int32), "b": base["b"]}, ""),
        ({"a": torch.tensor([1.0, -2.0]), "b": base["b"]}, ""),
        ({"a": torch.tensor([1.0, 2.0000002]), "b": base["b"]}, ""),
    ]
    digests = [checkpoint.digest(*other) for other in others]
    assert len(set(digests)) == len(others)
    assert checkpoint.digest(dict(reversed(base.items()))) == digests[0]


# modules and optimizers -------------------------------------------------------------------------

Made = tuple[TransformerLM, torch.optim.Optimizer]


def model(seed: int) -> TransformerLM:
    return TransformerLM(2, 257, 6, 8, 1, 2, 32, seed=seed)


def with_torch_adamw(seed: int) -> Made:
    m = model(seed)
    return m, torch.optim.AdamW(m.parameters(), 0.01, weight_decay=0.3)


def with_torch_groups(seed: int) -> Made:
    m = model(seed)
    p = list(m.parameters())
    return m, torch.optim.SGD([{"params": p[:3], "lr": 0.1}, {"params": p[3:]}], 0.01, momentum=0.9)


def with_numbers(seed: int) -> Made:
    m = model(seed)
    return m, AdamW(m.parameters(), lr=0.01, betas=(0.8, 0.9))


def with_tensors(seed: int) -> Made:
    """Two groups share the learning rates, as torch's defaults do."""
    m = model(seed)
    p = list(m.parameters())
    groups = [{"params": p[:3]}, {"params": p[3:], "weight_decay": 0.0}]
    rates = torch.tensor([0.01, 0.002])
    betas = (torch.tensor([0.9, 0.5]), torch.tensor([0.99, 0.9]))
    return m, AdamW(groups, lr=rates, betas=betas, weight_decay=torch.tensor([0.1, 0.0]))


MAKERS = pytest.mark.parametrize(
    "make", [with_torch_adamw, with_torch_groups, with_numbers, with_tensors]
)


def train(trained: Made, steps: range) -> None:
    m, optimizer = trained
    for step in steps:
        generator = torch.Generator().manual_seed(step)
        ids = torch.randint(257, (2, 3, 6), generator=generator)
        optimizer.zero_grad()
        m(ids).logsumexp(-1).square().mean().backward()
        optimizer.step()


@MAKERS
@pytest.mark.parametrize("to", ["path", "text", "file"])
def test_training_resumes_bit_for_bit(tmp_path: Path, make: Callable[[int], Made], to: str) -> None:
    trained, other = make(0), make(1)
    train(trained, range(4))
    out: Any = {"path": tmp_path / "x", "text": str(tmp_path / "x"), "file": io.BytesIO()}[to]
    save_checkpoint(*trained, 4, out)
    if isinstance(out, io.BytesIO):
        out.seek(0)
    assert load_checkpoint(out, *other) == 4
    train(trained, range(4, 8))
    train(other, range(4, 8))
    ours, theirs = trained[0].state_dict(), other[0].state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    fresh = make(0)
    train(fresh, range(4))
    assert not torch.equal(fresh[0].state_dict()["lm_head.weight"], ours["lm_head.weight"])


@MAKERS
def test_load_checkpoint_restores_the_groups(make: Callable[[int], Made]) -> None:
    trained, other = make(0), make(1)
    file = io.BytesIO()
    trained[1].param_groups[0]["lr"] = trained[1].param_groups[0]["lr"] * 0.5
    save_checkpoint(*trained, 0, file)
    file.seek(0)
    load_checkpoint(file, *other)
    for a, b in zip(trained[1].param_groups, other[1].param_groups, strict=True):
        assert a.keys() == b.keys()
        for key in a.keys() - {"params"}:
            assert type(a[key]) is type(b[key])
            ours, theirs = (g[key] if key == "betas" else (g[key],) for g in (a, b))
            assert all(
                x is None or bool((torch.as_tensor(x) == torch.as_tensor(y)).all())
                for x, y in zip(ours, theirs, strict=True)
            ), key


def test_save_checkpoint_takes_tied_weights(tmp_path: Path) -> None:
    def tied(value: float) -> tuple[nn.Module, torch.optim.Optimizer]:
        one = nn.Linear(3, 3)
        nn.init.constant_(one.weight, value)
        m = nn.Sequential(one, nn.Tanh(), one)
        return m, torch.optim.AdamW(m.parameters())

    (m, optimizer), (other, again) = tied(0.5), tied(0.0)
    save_checkpoint(m, optimizer, 1, tmp_path / "x")
    load_checkpoint(tmp_path / "x", other, again)
    assert torch.equal(other.state_dict()["2.weight"], torch.full((3, 3), 0.5))


def test_save_checkpoint_is_atomic(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trained = with_numbers(0)
    save_checkpoint(*trained, 1, tmp_path / "x")

    def fail(handle: int) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="Input/output"):
        save_checkpoint(*trained, 2, tmp_path / "x")
    assert load_checkpoint(tmp_path / "x", *trained) == 1


def damaged(file: IO[bytes]) -> None:
    file.seek(-3, 2)
    file.write(b"\x55")
    file.seek(0)


def test_load_checkpoint_refuses_damage_and_other_shapes(tmp_path: Path) -> None:
    trained = with_numbers(0)
    file = io.BytesIO()
    save_checkpoint(*trained, 1, file)
    file.seek(0)
    larger = TransformerLM(3, 257, 6, 8, 1, 2, 32)
    with pytest.raises(CheckpointError, match="does not fit the model"):
        load_checkpoint(file, larger, AdamW(larger.parameters()))
    damaged(file)
    with pytest.raises(CheckpointError, match="checksum"):
        load_checkpoint(file, *trained)
    checkpoint.write(tmp_path / "x", {"weights.a": torch.ones(1)}, {"step": 1})
    with pytest.raises(CheckpointError, match="does not fit the model"):
        load_checkpoint(tmp_path / "x", *trained)


@pytest.mark.parametrize("text", ["[1]", "x", "[" * 100_000], ids=["list", "text", "deep"])
def test_metadata_of_another_kind_are_refused(tmp_path: Path, text: str) -> None:
    path, values = tmp_path / "x.safetensors", {"a": torch.zeros(1)}
    header = {"format": "tuner/1", "about": text, "sha256": checkpoint.digest(values, text)}
    save_file(values, path, header)
    with pytest.raises(CheckpointError, match="whose metadata are damaged"):
        checkpoint.read(path)


def test_reason_of_damage_is_short(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    header = b'{"__metadata__":"\\u001b%s"}' % (b"a" * 100_000)
    path.write_bytes(len(header).to_bytes(8, "little") + header)
    with pytest.raises(CheckpointError, match="is damaged or no safetensors file") as error:
        checkpoint.read(path)
    assert len(str(error.value)) < 500
    assert str(error.value).isprintable()
