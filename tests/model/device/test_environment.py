"""Environment of a trial's bits, and the default dtype of a device."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest
import torch

from model.device import environment as environments
from model.device.environment import computing_dtype, environment
from model.device.precision import DTYPES


def test_environment_names_device_and_dtype() -> None:
    assert environment("cpu")["dtype"] == "float32"
    found = environment("cpu", "bfloat16")
    assert found["dtype"] == "bfloat16"
    assert found["device"].startswith("cpu: ")
    assert environment("mps")["device"].startswith("mps: ")


def test_environment_can_be_unpickled_without_torch() -> None:
    """A worker sends it to the driver, which must not wait for the import of torch."""
    assert {type(value) for value in environment("cpu").values()} == {str}


def test_environment_has_the_width_on_gpus_only() -> None:
    assert environment("cpu", width=3)["width"] == "any"
    assert environment("mps", width=3)["width"] == "3"


@pytest.mark.parametrize("has_bfloat16", [True, False])
def test_auto_is_bfloat16_where_a_gpu_computes_in_it(
    monkeypatch: pytest.MonkeyPatch, has_bfloat16: bool
) -> None:
    asked = []

    @contextlib.contextmanager
    def device(name: str) -> Iterator[None]:
        asked.append(name)
        yield

    def is_supported(*, including_emulation: bool) -> bool:
        assert not including_emulation, "what is emulated is slow"
        return has_bfloat16

    monkeypatch.setattr(torch.cuda, "device", device)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", is_supported)
    assert computing_dtype("auto", "cuda:1") == ("bfloat16" if has_bfloat16 else "float32")
    assert asked == ["cuda:1"]


@pytest.mark.parametrize("device", ["cpu", "mps"])
def test_auto_is_float32_on_other_devices(device: str) -> None:
    assert computing_dtype("auto", device) == "float32"


@pytest.mark.parametrize("dtype", DTYPES)
def test_explicit_dtype_is_kept(dtype: str) -> None:
    assert computing_dtype(dtype, "cuda") == dtype


def test_environment_of_a_machine_that_only_measures(monkeypatch: pytest.MonkeyPatch) -> None:
    """What scores translations is not needed to train."""

    def version(name: str) -> str:
        raise environments.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(environments.metadata, "version", version)
    assert environment("cpu")["sacrebleu"] == "not installed"
