"""Files at a URL, and what is said if they cannot be used."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import fsspec
import pytest

from tests.tuner.storage.broken import fresh_url, switched
from tuner.errors import StorageError
from tuner.storage.storage import Storage


@pytest.fixture(params=["memory", "file"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Storage:
    url = fresh_url() if request.param == "memory" else f"file://{tmp_path}/bucket"
    return Storage(url)


def test_storage_keeps_files(storage: Storage, tmp_path: Path) -> None:
    storage.check()
    assert storage.names() == []
    storage.at("lm-1").write("epochs/0001", b"one")
    storage.write("lm-1/epochs/0002", b"two")
    assert storage.at("lm-1").names("epochs") == ["0001", "0002"]
    assert storage.names() == ["lm-1"]
    assert storage.names("lm-1/nowhere") == []
    assert storage.read("lm-1/epochs/0002") == b"two"
    assert storage.read_all(["lm-1/epochs/0002", "lm-1/epochs/0001"]) == [b"two", b"one"]
    assert storage.read_all([]) == []
    with pytest.raises(FileNotFoundError):
        storage.read("lm-1/epochs/0003")
    with pytest.raises(FileNotFoundError):
        storage.download("lm-1/epochs/0003", tmp_path / "third")
    assert not (tmp_path / "third").exists()
    (tmp_path / "here").write_bytes(b"state")
    storage.upload(tmp_path / "here", "lm-1/checkpoints/0/1.safetensors")
    storage.download("lm-1/checkpoints/0/1.safetensors", tmp_path / "deep" / "there")
    assert (tmp_path / "deep" / "there").read_bytes() == b"state"
    storage.write("lm-1/checkpoints/1/2.safetensors", b"other")
    files = storage.at("lm-1").files("checkpoints")
    assert files == ["checkpoints/0/1.safetensors", "checkpoints/1/2.safetensors"]
    storage.at("lm-1").delete_all(files[:1])
    storage.at("lm-1").delete_all([])
    storage.at("lm-1").delete_all(["checkpoints/9/9.safetensors"])
    assert storage.at("lm-1").files("checkpoints") == files[1:]
    for _ in range(2):
        storage.delete("lm-1/epochs/0001")
        assert storage.names("lm-1/epochs") == ["0002"]
    for _ in range(2):
        storage.at("lm-1").delete_folder()
        assert storage.names() == []


def test_file_is_created_once(storage: Storage) -> None:
    storage.create("epochs/0001", b"first")
    with pytest.raises(FileExistsError):
        storage.create("epochs/0001", b"second")
    assert storage.read("epochs/0001") == b"first"


def test_lost_answer_of_a_creation_is_no_defeat() -> None:
    """The library repeats the request, and is told that the file exists."""
    storage = Storage(fresh_url())
    switch = switched(storage)
    plain = switch._file_system

    @contextmanager
    def created_twice(path: str, mode: str) -> Iterator[Any]:
        with plain.open(path, mode) as file:
            yield file
        raise OSError("412 Precondition Failed")

    switch._file_system = SimpleNamespace(open=created_twice, cat_file=plain.cat_file)
    storage.create("epochs/0001", b"mine")
    assert storage.read("epochs/0001") == b"mine"
    switch._file_system = plain
    with pytest.raises(FileExistsError):
        storage.create("epochs/0001", b"yours")


def refusal(url: str, seconds: float = 5.0, raised: Exception | None = None) -> str:
    """What is said about a storage, whose file system may raise."""
    storage = Storage(url)
    if raised is not None:

        def fail(*arguments: Any) -> None:
            raise raised

        storage.__dict__["_place"] = SimpleNamespace(pipe_file=fail), "place"
    with pytest.raises(StorageError) as caught:
        storage.check(seconds)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_storage_that_cannot_be_used_is_explained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "fsspec knows no nothing://; use s3://" in refusal("nothing://x")
    (tmp_path / "file").touch()
    assert "make it a folder that you can write" in refusal(f"file://{tmp_path}/file/x")
    missing = refusal("s3://lm/x", raised=FileNotFoundError("The specified bucket does not exist"))
    assert missing.startswith("there is no s3://lm, or it cannot be read; make it first")
    refused = refusal("s3://lm/x", raised=PermissionError("Access\nDenied"))
    assert "refuses access (Access Denied); give credentials" in refused
    no_credentials = type("NoCredentialsError", (Exception,), {})("Unable to locate credentials")
    assert "AWS_ACCESS_KEY_ID" in refusal("s3://lm/x", raised=no_credentials)
    down = refusal("s3://lm/x", raised=ConnectionError("Could not connect to the endpoint URL"))
    assert down == (
        "the storage s3://lm/x does not answer: Could not connect to the endpoint URL; start it, "
        "or correct engine.storage and the endpoint in the environment"
    )
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wJalrXUtnFEMI")
    assert "wJalr" not in refusal("s3://lm/x", raised=OSError("bad signature of wJalrXUtnFEMI"))


def test_missing_package_of_s3_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(url: str, **options: Any) -> None:
        raise ImportError("Install s3fs to access S3")

    monkeypatch.setattr(fsspec, "url_to_fs", fail)
    assert "pip install 'tuner[s3]'" in refusal("s3://lm/x")


def test_storage_that_hangs_is_given_up() -> None:
    storage, released = Storage(fresh_url()), threading.Event()
    storage.__dict__["_place"] = SimpleNamespace(pipe_file=lambda *_: released.wait(30)), "place"
    with pytest.raises(StorageError, match="did not answer within 0 seconds; start it, or correct"):
        storage.check(0.05)
    released.set()
