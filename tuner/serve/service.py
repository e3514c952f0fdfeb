"""What users do: submit, pause, resume, stop, move, delete searches. The API is thin above it."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

from model.errors import CorpusError
from tuner.errors import Mistake, RecordError, SpaceError, TunerError
from tuner.home.home import Home
from tuner.home.names import check_new_name
from tuner.jobs.submit import free_name
from tuner.lease.folder import is_running, newest
from tuner.lease.stop_request import StopRequest, request_stop
from tuner.serve.access import Refused, may_change, may_read
from tuner.serve.database import Database
from tuner.serve.dispatcher import FOLDER, Dispatcher, keep_space, space_file
from tuner.serve.edits import recorded_of, request_of, wait_for
from tuner.serve.machine import Machine
from tuner.serve.queue import Priority
from tuner.serve.records import QueuedSearch, User
from tuner.serve.searches import HomeSearches
from tuner.serve.spaces import Allowed, MayRead, decoded, hash_of, sent_space
from tuner.serve.views import SearchView
from tuner.space_file.overrides import Override
from tuner.space_file.text_edit import with_value
from tuner.texts.formatting import shown
from tuner.validation.explanation import Explanation, estimated

_DELETE_SECONDS = 300.0
_LOOK_SECONDS = 0.1  # in which the queue usually looks at a change


class Conflict(TunerError):  # noqa: N818 - the name states the problem
    """A search that cannot be submitted because of an earlier one.

    Args:
        message: one sentence.
        earlier: the earlier search; None if the user may not see it.
    """

    def __init__(self, message: str, earlier: SearchView | None) -> None:
        super().__init__(message)
        self.earlier = earlier


@dataclass(frozen=True)
class Wish:
    """How a user wants a search to be run.

    Attributes:
        name: name of the search; None for one made from the space's name.
        priority: its class.
        visibility: who else sees it.
        least: number of devices that are enough; None for all that it asks for.
        key: idempotency key of the request.
    """

    name: str | None = None
    priority: Priority = Priority.NORMAL
    visibility: str = "team"
    least: int | None = None
    key: str | None = None


@dataclass(frozen=True)
class Service:
    """The searches of a home for several users.

    Attributes:
        home: home of the searches.
        database: database of the server.
        searches: the searches by their journals.
        dispatcher: runs the queue.
        machine: devices.
        allowed: what spaces may name.
    """

    home: Home
    database: Database
    searches: HomeSearches
    dispatcher: Dispatcher
    machine: Machine
    allowed: Allowed

    # look -----------------------------------------------------------------------------------------

    def view(self, user: User, name: str) -> SearchView:
        """Return a search that a user may see.

        Raises:
            RecordError: if there is none.
        """
        return self._view(name, self.readable(user, name))

    def readable(self, user: User, name: str) -> QueuedSearch | None:
        """Return what was submitted of a search that a user may see.

        Raises:
            RecordError: if there is no search of this name, or the user may not know of it.
        """
        entry = self.database.search(name)
        is_there = entry is not None or self.searches.status(name) is not None
        owner = self._owner(entry)
        if not is_there or not may_read(user, entry, owner):
            raise RecordError(f"there is no search {shown(name)}")
        return entry

    def names(self, user: User) -> list[tuple[str, QueuedSearch | None]]:
        """Return the searches that a user may see, the newest first, as submitted."""
        entries = {entry.name: entry for entry in self.database.searches()}
        owners = {each.name: each for each in self.database.users()}
        begun = self.searches.names()
        known = set(begun)
        unbegun = [name for name in reversed(entries) if name not in known]
        return [
            (name, entries.get(name))
            for name in (*unbegun, *begun)
            if may_read(
                user, entry := entries.get(name), owners.get(entry.owner) if entry else None
            )
        ]

    def views(self, named: Sequence[tuple[str, QueuedSearch | None]]) -> list[SearchView]:
        """Return searches of which it is known what was submitted."""
        return [self._view(name, entry) for name, entry in named]

    def _view(self, name: str, entry: QueuedSearch | None) -> SearchView:
        status = self.searches.status(name)
        return SearchView.of(name, entry, status, self.dispatcher.waits.get(name))

    def _seen(self, user: User, name: str) -> SearchView:
        """Return a search after the queue has looked at a change."""
        self.dispatcher.wake(_LOOK_SECONDS)
        return self.view(user, name)

    def _owner(self, entry: QueuedSearch | None) -> User | None:
        if entry is None:
            return None
        return next((user for user in self.database.users() if user.name == entry.owner), None)

    # submit ---------------------------------------------------------------------------------------

    def check(self, user: User, data: bytes) -> tuple[Explanation, str]:
        """Return what a search of a space that a user sent would train, and the space's text.

        Raises:
            SpaceError: with every mistake.
        """
        space, text = sent_space(data, self.home.root / FOLDER, self.allowed, self._may_read(user))
        try:
            return estimated(space), text
        except CorpusError as error:
            raise SpaceError("search.yaml", [Mistake(1, 1, str(error))]) from error

    def _may_read(self, user: User) -> MayRead:
        """Return a function that says if a user may read a search."""

        def may_read_it(name: str) -> bool:
            try:
                self.readable(user, name)
            except RecordError:
                return False
            return True

        return may_read_it

    def submit(self, user: User, data: bytes, wish: Wish) -> SearchView:
        """Put a search into the queue.

        Raises:
            SpaceError: with every mistake of the space.
            Conflict: if there is a search of this space or name.
            Refused: if the user may not.
        """
        if user.role == "viewer":
            raise Refused(403, f"{user.name} is a viewer, and may not submit searches")
        if wish.key and (same := self.database.of_key(user.name, wish.key)):
            return self._view(same.name, same)
        explanation, text = self.check(user, data)
        space, (_, tokens) = explanation.space, explanation.tokens
        digest = hash_of(space)
        for earlier in self.database.equal(digest):
            if not earlier.problem and may_read(user, earlier, self._owner(earlier)):
                message = f"{earlier.name} is a search of the same space"
                raise Conflict(message, self._view(earlier.name, earlier))
        wants = space.engine.workers or self.machine.number
        now = time.time()
        entry = QueuedSearch(
            wish.name or "", user.name, digest, text, wish.visibility, int(wish.priority), now, now,
            wants, min(wish.least or wants, wants), tokens, idempotency_key=wish.key,
        )  # fmt: skip
        entry = self._added(user, entry, space.name)
        self.database.note(user.name, "submit", entry.name)
        return self._seen(user, entry.name)

    def fork(
        self, user: User, name: str, data: bytes, wish: Wish, changes: Sequence[Override] = ()
    ) -> SearchView:
        """Put a search into the queue whose space is that of another one, changed.

        Args:
            user: who asks.
            name: name of the other search.
            data: text of the changed space; nothing for the space as it is.
            wish: how the search is to be run.
            changes: values that replace those of the text.

        Raises:
            SpaceError, Conflict, Refused: as `submit`.
            RecordError: if there is no search of this name.
        """
        text = self.space_text(user, name)
        if data:
            text = decoded(data)
        for change in changes:
            text = with_value(text, change.path, change.text)
        view = self.submit(user, text.encode(), wish)
        self.database.note(user.name, "fork", view.name, f"of {name}")
        return view

    def space_text(self, user: User, name: str) -> str:
        """Return the text of the space of a search.

        Raises:
            RecordError: if there is no such search, or its space was not a file.
        """
        entry = self.readable(user, name)
        text = entry.space_text if entry is not None else ""
        text = text or self.searches.read(name, lambda search: search.space_text) or ""
        if not text:
            raise RecordError(f"{name} was begun from Python, without a file of its space")
        return text

    def _added(self, user: User, entry: QueuedSearch, stem: str) -> QueuedSearch:
        """Add a search to the database, under its name or the first free one."""
        if entry.name:
            try:
                check_new_name(entry.name)
            except RecordError as error:
                raise SpaceError("name", [Mistake(0, 0, str(error))]) from error
            if not self.home.search(entry.name).exists() and self.database.add(entry):
                return entry
            raise Conflict(f"there is a search {entry.name}", self._earlier(user, entry))
        number = self._last_number(stem) + 1
        while True:
            name = free_name(stem, self.home, number)
            if self.database.add(named := replace(entry, name=name)):
                return named
            if entry.idempotency_key and (
                same := self.database.of_key(user.name, entry.idempotency_key)
            ):  # a request at the same time
                return same
            number = int(name.rpartition("-")[2]) + 1

    def _last_number(self, stem: str) -> int:
        """Return the largest N of the submitted STEM-N; to try each would take ever longer."""
        names = [name for name in self.database.names() if name.startswith(f"{stem}-")]
        ends = [name.removeprefix(f"{stem}-") for name in names]
        return max((int(end) for end in ends if end.isascii() and end.isdecimal()), default=0)

    def _earlier(self, user: User, entry: QueuedSearch) -> SearchView | None:
        try:
            return self.view(user, entry.name)
        except RecordError:
            return None

    # change ---------------------------------------------------------------------------------------

    def change(self, user: User, name: str, action: str) -> SearchView:
        """Pause, resume or stop a search.

        Raises:
            RecordError: if there is none.
            Refused: if the user may not, or the search has finished.
        """
        entry = self._changeable(user, name)
        if entry is None:
            entry = self._adopted(user, name, action)
        elif action == "resume":
            status = self.searches.status(name)
            if status is not None and status.state == "finished":
                raise Refused(409, f"{name} has finished; edit it to give it more trials")
            self.database.change(name, wanted="run", attempts=0, problem="")
        elif entry.wanted:
            self.database.change(name, wanted=action)
        else:
            raise Refused(409, f"{name} has ended, so there is nothing to {action}")
        self.database.note(user.name, action, name)
        return self._seen(user, name)

    def edit(self, user: User, name: str, data: bytes) -> SearchView:
        """Give a search another space, as far as a resumed search may have one.

        The driver of a search that trains goes on with it; where the new space needs another
        session, or the search has not begun, it begins again at once, on the same devices. One that
        waits or is paused has the space when it goes on, and one that has ended goes on.

        Raises:
            SpaceError: with every mistake of the space.
            RecordError, Refused: as `change`, or if the space differs in more than is allowed.
        """
        entry = self._changeable(user, name)
        if entry is None:
            raise Refused(409, f"{name} is in no queue; resume it first")
        explanation, text = self.check(user, data)
        space, (_, tokens) = explanation.space, explanation.tokens
        recorded, request, needs_driver = recorded_of(self.searches, name), None, True
        if recorded is not None:
            request, needs_driver = request_of(
                self.searches, name, recorded, data, self.home.root / FOLDER, self.allowed,
                self._may_read(user),
            )  # fmt: skip
        wants = space.engine.workers or self.machine.number
        values: dict[str, object] = {
            "space_text": text, "space_hash": hash_of(space), "expected_tokens": tokens,
            "wants": wants, "least": min(entry.least, wants), "problem": "", "attempts": 0,
        }  # fmt: skip
        if entry.devices and needs_driver:
            values["asked"] = entry.asked or "edit"
        elif not entry.wanted:
            values["wanted"] = "run"
        self.database.change(name, **values)
        self.database.note(user.name, "edit", name)
        if request is not None:
            keep_space(self.home, name, text)
        if request is not None and not needs_driver:
            wait_for(request)
        return self._seen(user, name)

    def prioritize(
        self, user: User, name: str, priority: Priority | None, before: str | None
    ) -> SearchView:
        """Change the class of a search, or move it before another one of its class and owner.

        Raises:
            RecordError, Refused: as `change`.
        """
        entry = self._changeable(user, name)
        if entry is None:
            raise Refused(409, f"{name} was begun by a command, and is in no queue")
        if priority is not None:
            self.database.change(name, priority=int(priority))
        if before is not None:
            self.database.change(name, place=self._place(user, entry, before))
        detail = priority.name.lower() if priority is not None else f"before {before}"
        self.database.note(user.name, "priority", name, detail)
        return self._seen(user, name)

    def _place(self, user: User, entry: QueuedSearch, before: str) -> float:
        """Return a place just before that of another search of the owner."""
        other = self.readable(user, before)
        if other is None or other.owner != entry.owner:
            raise Refused(409, f"{shown(before)} is no search of {entry.owner}")
        places = [
            each.place for each in self.database.active()
            if each.owner == entry.owner and each.place < other.place and each.name != entry.name
        ]  # fmt: skip
        return (max(places) + other.place) / 2 if places else other.place - 1.0

    def delete(self, user: User, name: str) -> None:
        """Delete a search that nothing runs, its runs and its files.

        Raises:
            RecordError, Refused: as `change`.
        """
        entry = self._changeable(user, name)
        if is_running(self.home.search(name)) or (entry and entry.devices):
            raise Refused(409, f"{name} is running; stop it first")
        if entry is not None:
            self.database.change(name, wanted="stop")
        if self.home.search(name).is_dir():
            # in a process of its own: MLflow would stay in the memory of this one
            command = [sys.executable, "-m", "tuner", "delete", name, "--yes", "--home"]
            done = subprocess.run(
                [*command, str(self.home.root)], capture_output=True, text=True,
                timeout=_DELETE_SECONDS, check=False,
            )  # fmt: skip
            if done.returncode:
                raise Refused(409, done.stderr.strip().rpartition("\n")[2])
        space_file(self.home, name).unlink(missing_ok=True)
        self.database.remove(name)
        self.searches.forget(name)
        self.database.note(user.name, "delete", name)

    def _changeable(self, user: User, name: str) -> QueuedSearch | None:
        entry = self.readable(user, name)
        if not may_change(user, entry):
            raise Refused(403, f"{user.name} may not change {name}")
        return entry

    def _adopted(self, user: User, name: str, action: str) -> QueuedSearch:
        """Take a search into the queue that a command has begun."""
        folder = self.home.search(name)
        entry = QueuedSearch(
            name, user.name, visibility="public", submitted=time.time(), place=time.time(),
            wants=self.machine.number, least=self.machine.number,
            wanted="run" if action == "resume" else action,
        )  # fmt: skip
        if action != "resume" and is_running(folder) and (holder := newest(folder)):
            request_stop(folder, holder, StopRequest.SOON)
        self.database.add(entry)
        return entry
