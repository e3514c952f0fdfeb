"""Files at a URL that fsspec knows, such as a bucket of S3; each is read and written as a whole."""

from __future__ import annotations

import secrets
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cached_property
from pathlib import Path
from typing import Any, Self

from model.files import replacing
from tuner.errors import StorageError, TunerError

_PROBE_SECONDS = 20.0
_PACKAGES = {"s3": "'tuner[s3]'", "s3a": "'tuner[s3]'"}  # what pip installs for a protocol
_LOCAL = ("file", "local")
_LONGEST_REASON = 200
_START = "start it, or correct engine.storage and the endpoint in the environment"


class _NoAnswerError(StorageError):
    """A storage does not answer, for a reason that its library names."""


class Storage:
    """A folder at a URL.

    fsspec and the package of the protocol are imported when they are needed, which takes a second.
    All methods may be called by several threads.

    Args:
        url: URL of the folder; it need not exist.
    """

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")

    def at(self, name: str) -> Self:
        """Return a folder of this folder."""
        return type(self)(f"{self.url}/{name}")

    @cached_property
    def _place(self) -> tuple[Any, str]:
        """The file system, and the path in it."""
        import fsspec

        protocol = self.url.partition("://")[0]
        options = {"auto_mkdir": True} if protocol in _LOCAL else {}
        try:
            # what a listing says must be of now: other drivers and workers write
            return fsspec.url_to_fs(self.url, use_listings_cache=False, **options)  # type: ignore[no-any-return]
        except ImportError as error:
            package = _PACKAGES.get(protocol, f"the package of fsspec for {protocol}")
            raise StorageError(
                f"engine.storage is {self.url}, and the package for {protocol}:// is missing: "
                f"pip install {package} ({_reason(error)})"
            ) from error
        except ValueError as error:
            raise StorageError(
                f"engine.storage is {self.url}, and fsspec knows no {protocol}://; use s3://, "
                f"gs://, abfs:// or file://"
            ) from error

    def read(self, name: str) -> bytes:
        """Return the content of a file.

        Raises:
            FileNotFoundError: if there is none.
            StorageError: if the storage does not answer, or refuses.
        """
        with self._files() as (files, folder):
            return bytes(files.cat_file(f"{folder}/{name}"))

    def read_all(self, names: Sequence[str]) -> list[bytes]:
        """Return the contents of several files, which a bucket reads at one time.

        Raises:
            FileNotFoundError, StorageError: as `read`.
        """
        with self._files() as (files, folder):
            paths = [f"{folder}/{name}" for name in names]
            contents = files.cat(paths) if paths else {}
            return [bytes(contents[path]) for path in paths]

    def write(self, name: str, data: bytes) -> None:
        """Write a file.

        Raises:
            StorageError: if the storage does not answer, or refuses.
        """
        with self._files() as (files, folder):
            files.pipe_file(f"{folder}/{name}", data)

    def create(self, name: str, data: bytes) -> None:
        """Write a file that must be new: of several drivers, one can.

        Args:
            name: name of the file.
            data: content, which no other driver would write.

        Raises:
            FileExistsError: if there is such a file.
            StorageError: if the storage does not answer, or refuses.
        """
        with self._files() as (files, folder):
            path = f"{folder}/{name}"
            try:
                with files.open(path, "xb") as file:  # on S3 with If-None-Match
                    file.write(data)
                return
            except Exception:
                # Libraries differ in the error, and repeat a request whose answer was lost: then
                # they are told that the file exists, and it is ours.
                try:
                    found = files.cat_file(path)
                except FileNotFoundError:
                    found = None
                if found is None:
                    raise
        if found != data:
            raise FileExistsError(f"{self.url}/{name}")

    def upload(self, path: Path, name: str) -> None:
        """Copy a local file.

        Raises:
            StorageError: if the storage does not answer, or refuses.
        """
        with self._files() as (files, folder):
            files.put_file(str(path), f"{folder}/{name}")

    def download(self, name: str, path: Path) -> None:
        """Copy a file to a local path, at which there is the complete file or none.

        Raises:
            FileNotFoundError, StorageError: as `read`.
            OSError: if it cannot be written.
        """
        data = self.read(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as file:
            file.write(data)

    def names(self, folder: str = "") -> list[str]:
        """Return the names of the files and folders in a folder, in order; none without it.

        Raises:
            StorageError: if the storage does not answer, or refuses.
        """
        with self._files() as (files, root):
            try:
                paths = files.ls(f"{root}/{folder}".rstrip("/"), detail=False)
            except FileNotFoundError:
                return []
            return sorted(name for path in paths if (name := path.rstrip("/").rpartition("/")[2]))

    def files(self, folder: str) -> list[str]:
        """Return the names of all files in a folder and its folders, from this folder on.

        Raises:
            StorageError: if the storage does not answer, or refuses.
        """
        with self._files() as (files, root):
            paths = files.find(f"{root}/{folder}")
            return sorted(path.removeprefix(f"{root}/") for path in paths)

    def delete(self, name: str) -> None:
        """Delete a file, if it exists.

        Raises:
            StorageError: if the storage does not answer, or refuses.
        """
        with self._files() as (files, folder), suppress(FileNotFoundError):
            files.rm_file(f"{folder}/{name}")

    def delete_all(self, names: Sequence[str]) -> None:
        """Delete several files, which a bucket does at one time.

        Raises:
            StorageError: if the storage does not answer, or refuses.
        """
        with self._files() as (files, folder), suppress(FileNotFoundError):
            if names:
                files.rm([f"{folder}/{name}" for name in names])

    def delete_folder(self, name: str = "") -> None:
        """Delete a folder with all that is in it, if it exists.

        Raises:
            StorageError: if the storage does not answer, or refuses.
        """
        with self._files() as (files, folder), suppress(FileNotFoundError):
            files.rm(f"{folder}/{name}".rstrip("/"), recursive=True)

    def check(self, seconds: float = _PROBE_SECONDS) -> None:
        """Check that a file can be written, read and deleted.

        Args:
            seconds: time after which the storage is taken for one that does not answer.

        Raises:
            StorageError: if not, with what to do.
        """
        self._place  # noqa: B018 - a missing package is said before the thread starts
        errors: list[BaseException] = []

        def probe() -> None:
            try:
                self._probe()
            except BaseException as error:  # noqa: BLE001 - raised below
                errors.append(error)

        thread = threading.Thread(target=probe, name="storage-probe", daemon=True)
        thread.start()
        thread.join(seconds)
        if thread.is_alive():
            raise StorageError(
                f"the storage {self.url} did not answer within {seconds:.0f} seconds; {_START}"
            )
        for error in errors:
            if isinstance(error, _NoAnswerError):
                raise StorageError(f"{error}; {_START}") from error
            raise error

    def _probe(self) -> None:
        name, data = f".probe-{secrets.token_hex(8)}", b"tuner"
        try:
            self.write(name, data)
            found = self.read(name)
            self.delete(name)
        except FileNotFoundError as error:
            raise StorageError(
                f"there is no {self._bucket}, or it cannot be read; make it first, or correct "
                f"engine.storage"
            ) from error
        if found != data:
            raise StorageError(f"the storage {self.url} returns other bytes than were written")

    @property
    def _bucket(self) -> str:
        protocol, _, rest = self.url.partition("://")
        return self.url if protocol in _LOCAL else f"{protocol}://{rest.partition('/')[0]}"

    @contextmanager
    def _files(self) -> Iterator[tuple[Any, str]]:
        """Give the file system and the path in it; raise its errors as a StorageError for users."""
        try:
            yield self._place
        except (FileNotFoundError, TunerError):
            raise
        except Exception as error:  # each library has errors of its own
            if self.url.startswith(tuple(f"{protocol}://" for protocol in _LOCAL)):
                raise StorageError(
                    f"the storage {self.url} cannot be used: {_reason(error)}; make it a folder "
                    f"that you can write"
                ) from error
            if isinstance(error, PermissionError) or "Credential" in type(error).__name__:
                raise StorageError(
                    f"the storage {self.url} refuses access ({_reason(error)}); give credentials "
                    f"that may read, write and delete there, in the environment or the "
                    f"configuration of its library, such as AWS_ACCESS_KEY_ID and "
                    f"AWS_SECRET_ACCESS_KEY or AWS_PROFILE"
                ) from error
            raise _NoAnswerError(
                f"the storage {self.url} does not answer: {_reason(error)}"
            ) from error


def _reason(error: BaseException) -> str:
    """Return the first error of a chain in one line."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= _LONGEST_REASON else f"{text[: _LONGEST_REASON - 1]}…"
