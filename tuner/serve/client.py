"""A client of `tuner serve`, for Python and for the command line.

Statuses, mistakes and journals are the objects that the local commands have, so the same code
shows them.
"""

from __future__ import annotations

import json
import os
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

from typing_extensions import override

from model.files import replacing
from tuner.errors import JournalError, Mistake, SpaceError, TunerError
from tuner.jobs.status import SearchStatus
from tuner.journal.journal import JOURNAL_FILE, JournalTail
from tuner.notify.receivers import NoRedirects

SERVER, TOKEN = "TUNER_SERVER", "TUNER_TOKEN"  # environment variables
LOG_FILE = "log.txt"
_TIMEOUT_SECONDS = 60.0
_MOST_BYTES = 1 << 30  # of an answer


class Refusal(TunerError):  # noqa: N818 - the name states the problem
    """A server has refused a request.

    Args:
        status: status of HTTP.
        message: what the server said.
    """

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True)
class RemoteSearch:
    """A search of a server.

    Attributes:
        name: name of the search.
        state: its state, as the server says it.
        status: how far it is, as `tuner status` shows it.
        position: place in the queue; None unless it waits.
        waits_for: why it waits; None unless it does.
        begins_at: when it will probably begin, in seconds since the epoch.
        owner: who submitted it.
        priority: its class.
    """

    name: str
    state: str
    status: SearchStatus
    position: int | None = None
    waits_for: str | None = None
    begins_at: float | None = None
    owner: str = ""
    priority: str = "normal"

    @classmethod
    def of(cls, view: Mapping[str, Any]) -> RemoteSearch:
        """Read an answer of the server; unknown fields are of a newer one."""
        status = SearchStatus(
            str(view["name"]), str(view["state"]), view.get("driver", ""),
            view.get("trials_done", 0), view.get("trials", 0), view.get("metric", ""),
            view.get("best"), view.get("best_trial"), view.get("tokens", 0),
            view.get("tokens_per_second"), view.get("seconds_left"), view.get("newest"),
            view.get("problem"), view.get("waits_for"),
        )  # fmt: skip
        return cls(
            status.name, status.state, status, view.get("position"), view.get("waits_for"),
            view.get("begins_at"), view.get("owner", ""), view.get("priority", "normal"),
        )  # fmt: skip


@dataclass(frozen=True)
class RemoteOperation:
    """An operation that a server does, or has done: a report, an export, a replay, a text.

    Attributes:
        id: id of the operation.
        state: `waiting`, `running`, `done`, `failed`, or `interrupted`.
        exit_status: exit status of its command; None before its end.
        progress: what it says of its progress.
        problem: why it failed.
        result: object that its command printed.
        files: names of its files.
    """

    id: str
    state: str
    exit_status: int | None
    progress: str
    problem: str | None
    result: Mapping[str, Any] | None
    files: tuple[str, ...]

    @classmethod
    def of(cls, view: Mapping[str, Any]) -> RemoteOperation:
        """Read an answer of the server."""
        return cls(
            str(view["id"]), str(view["state"]), view.get("exit_status"),
            view.get("progress") or "", view.get("problem"), view.get("result"),
            tuple(str(file["name"]) for file in view.get("files", ())),
        )  # fmt: skip

    @property
    def is_over(self) -> bool:
        """True after its end."""
        return self.state not in ("waiting", "running")


class Client:
    """A server of searches.

    Args:
        url: where it is; by default `TUNER_SERVER`.
        token: token of the user; by default `TUNER_TOKEN`, or what `tuner login` has kept.

    Raises:
        TunerError: of every method, if the server does not answer or refuses, in one sentence.
    """

    def __init__(self, url: str | None = None, token: str | None = None) -> None:
        url = url or os.environ.get(SERVER, "")
        if urlsplit(url).scheme not in ("http", "https") or not urlsplit(url).hostname:
            raise TunerError(f"--server must be a URL such as https://tuner.example, got {url!r}")
        self.url = url.rstrip("/")
        self._token = token or os.environ.get(TOKEN) or kept_tokens().get(self.url)
        self._opener = urllib.request.build_opener(NoRedirects)  # they would get the token

    def submit(
        self,
        space: str | Path,
        *,
        name: str | None = None,
        priority: str = "normal",
        visibility: str = "team",
        key: str | None = None,
    ) -> RemoteSearch:
        """Put a search into the queue.

        Args:
            space: path of the file of the space, or its text.
            name: name of the search; by default the space's name and a number.
            priority: `low`, `normal`, `high` or `urgent`.
            visibility: who else sees it: `private`, `team` or `public`.
            key: an equal key submits once.

        Raises:
            SpaceError: with every mistake of the space.
        """
        file = space if isinstance(space, Path) else None
        text = file.read_text(encoding="utf-8") if file else str(space)
        query = {"name": name, "priority": priority, "visibility": visibility}
        headers = {"Idempotency-Key": key} if key else {}
        return RemoteSearch.of(self._space("searches", text, str(file or "space"), query, headers))

    def edit(self, name: str, text: str, file: str = "space") -> RemoteSearch:
        """Give a search another space; one that runs goes on with it.

        Raises:
            SpaceError: with every mistake of the space.
        """
        return RemoteSearch.of(self._space(_path(name, "edit"), text, file))

    def upload(self, file: Path) -> str:
        """Send a file of data; return the path that `data.files` of a space may name."""
        try:
            data = file.read_bytes()
        except OSError as error:
            raise TunerError(f"cannot read {file}: {error.strerror}") from error
        headers = {"Content-Type": "application/octet-stream"}
        answer = self._json("POST", "uploads", {"suffix": file.suffix}, data, headers)
        return str(answer["path"])

    def validate(self, text: str, file: str = "space") -> Mapping[str, Any]:
        """Return what the server says of a space.

        Raises:
            SpaceError: with every mistake of the space.
        """
        answer: Mapping[str, Any] = self._space("validate", text, file)
        return answer

    def searches(self) -> Iterator[RemoteSearch]:
        """Yield all searches, the newest first."""
        page = None
        while True:
            answer = self._json("GET", "searches", {"page": page})
            yield from map(RemoteSearch.of, answer["searches"])
            if (page := answer["next"]) is None:
                return

    def search(self, name: str) -> RemoteSearch:
        """Return a search."""
        return RemoteSearch.of(self._json("GET", _path(name)))

    def pause(self, name: str) -> RemoteSearch:
        """Pause a search after the reports under way; it keeps its place."""
        return RemoteSearch.of(self._json("POST", _path(name, "pause")))

    def resume(self, name: str) -> RemoteSearch:
        """Let a search go on."""
        return RemoteSearch.of(self._json("POST", _path(name, "resume")))

    def stop(self, name: str) -> RemoteSearch:
        """End a search; it can be resumed."""
        return RemoteSearch.of(self._json("POST", _path(name, "stop")))

    def prioritize(self, name: str, priority: str) -> RemoteSearch:
        """Change the class of a search."""
        return RemoteSearch.of(self._json("POST", _path(name, "priority"), {"priority": priority}))

    def delete(self, name: str) -> None:
        """Delete a search that nothing runs."""
        self._send("DELETE", _path(name))

    def fork(
        self, name: str, changes: Sequence[str] = (), *, new_name: str | None = None
    ) -> RemoteSearch:
        """Submit the space of a search again, changed: `search.seed=1` as `--set` takes it."""
        query = {"set": list(changes), "new_name": new_name}
        return RemoteSearch.of(self._json("POST", _path(name, "fork"), query))

    def begin(self, name: str, kind: str, **wish: Any) -> RemoteOperation:
        """Begin an operation of a search; `kind` and `wish` are those of the API."""
        body = json.dumps({"kind": kind, **wish}).encode()
        headers = {"Content-Type": "application/json"}
        return RemoteOperation.of(
            self._json("POST", _path(name, "operations"), body=body, headers=headers)
        )

    def operation(self, number: str) -> RemoteOperation:
        """Return an operation."""
        return RemoteOperation.of(self._json("GET", f"operations/{quote(number, safe='')}"))

    def output(self, number: str) -> str:
        """Return what the command of an operation has printed."""
        return self._send("GET", f"operations/{quote(number, safe='')}/output").decode()

    def file(self, number: str, name: str) -> bytes:
        """Return a file of an operation."""
        path = f"operations/{quote(number, safe='')}/files/{quote(name, safe='')}"
        return self._send("GET", path)

    def download(self, name: str, file: str, start: int = 0) -> bytes:
        """Return a file of a search, from a byte on; nothing if there is nothing yet."""
        headers = {"Range": f"bytes={start}-"} if start else {}
        try:
            return self._send("GET", _path(name, "files", file), headers=headers)
        except Refusal as error:
            if error.status in (404, 416):
                self.search(name)  # raises if it is the search that is not there
                return b""
            raise

    def _space(
        self,
        path: str,
        text: str,
        file: str,
        query: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Any:
        headers = {"Content-Type": "application/yaml", **(headers or {})}
        try:
            return self._json("POST", path, query, text.encode(), headers)
        except _MistakesError as error:
            raise SpaceError(file, error.mistakes) from error

    def _json(
        self,
        method: str,
        path: str,
        query: Mapping[str, Any] | None = None,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Any:
        try:
            return json.loads(self._send(method, path, query, body, headers))
        except ValueError as error:
            raise TunerError(f"{self.url} is no server of tuner: its answer is no JSON") from error

    def _send(
        self,
        method: str,
        path: str,
        query: Mapping[str, Any] | None = None,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> bytes:
        """Send a request, and return the body of the answer."""
        values = {key: value for key, value in (query or {}).items() if value is not None}
        url = f"{self.url}/api/v1/{path}" + (f"?{urlencode(values, doseq=True)}" if values else "")
        own = {"Authorization": f"Bearer {self._token}"} if self._token else {}
        request = urllib.request.Request(
            url, data=body, method=method, headers={**own, **(headers or {})}
        )
        try:
            with self._opener.open(request, timeout=_TIMEOUT_SECONDS) as answer:
                data: bytes = answer.read(_MOST_BYTES)
                return data
        except urllib.error.HTTPError as error:
            raise _refusal(self.url, error.code, error.read(1 << 20)) from error
        except OSError as error:
            reason = getattr(error, "reason", None) or error
            raise TunerError(
                f"the server {self.url} does not answer: {getattr(reason, 'strerror', reason)}; "
                f"check --server"
            ) from error


class RemoteTail(JournalTail):
    """Reads what is added to a journal of a server; a `Source` of a follower.

    Args:
        client: the server.
        name: name of the search.
    """

    def __init__(self, client: Client, name: str) -> None:
        super().__init__(Path(name))
        self._client, self._name = client, name

    @override
    def _data(self, start: int, most: int) -> bytes:
        try:
            return self._client.download(self._name, JOURNAL_FILE, start)
        except TunerError as error:
            raise JournalError(str(error)) from error


class _MistakesError(TunerError):
    def __init__(self, mistakes: Sequence[Mistake]) -> None:
        super().__init__("; ".join(mistake.message for mistake in mistakes))
        self.mistakes = mistakes


def _refusal(url: str, status: int, body: bytes) -> TunerError:
    """Return the error of an answer."""
    try:
        answer = json.loads(body)
        if isinstance(answer, list):
            return _MistakesError([Mistake(m["line"], m["column"], m["message"]) for m in answer])
        hint = f"; 'tuner login {url}' keeps a token" if status == 401 else ""
        return Refusal(status, f"{answer['message']}{hint}")
    except (ValueError, KeyError, TypeError):
        return Refusal(status, f"{url} is no server of tuner: it answers with status {status}")


def _path(name: str, *more: str) -> str:
    return "/".join(["searches", *(quote(part, safe="") for part in (name, *more))])


# tokens -------------------------------------------------------------------------------------------


def tokens_file() -> Path:
    """Return the path of the tokens that `tuner login` keeps."""
    config = os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config"
    return Path(config) / "tuner" / "tokens.json"


def kept_tokens() -> dict[str, str]:
    """Return the tokens that `tuner login` has kept, by the URLs of their servers."""
    try:
        tokens = json.loads(tokens_file().read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return tokens if isinstance(tokens, dict) else {}


def keep_token(url: str, token: str) -> Path:
    """Keep a token for a server in a file that only its user can read; return its path.

    Raises:
        TunerError: if it cannot be written.
    """
    path = tokens_file()
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with replacing(path) as file:
            os.fchmod(file.fileno(), 0o600)
            file.write(json.dumps({**kept_tokens(), url: token}, indent=1).encode())
    except OSError as error:
        raise TunerError(f"cannot write {path}: {error.strerror}") from error
    return path
