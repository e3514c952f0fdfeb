"""`tuner edit`: give a search that runs another space."""

from __future__ import annotations

import argparse

from tuner.commands.jobs.remote import client_of, text_of
from tuner.commands.output import consoles, home_of, home_option, print_json, say
from tuner.commands.search import edit_of
from tuner.errors import TunerError
from tuner.home.home import Home
from tuner.jobs.edit import EditRequest
from tuner.jobs.status import SearchStatus, no_search
from tuner.jobs.stop import stop
from tuner.jobs.submit import submit
from tuner.journal.edit import changes, check_edit, needs_new_session
from tuner.journal.journal import read_search
from tuner.lease.folder import is_running
from tuner.texts.formatting import listed
from tuner.trained.moved_data import as_recorded


def run_edit(options: argparse.Namespace) -> int:
    """Let a search that runs go on with another space."""
    results, _ = consoles(options)
    name = options.search
    path, sent = text_of(options)
    if (client := client_of(options)) is not None:
        search = client.edit(name, sent, path)
        results.write_line(f"{name} is {search.state} at {client.url}, with {path}")
        print_json(options, search)
        return 0
    home = home_of(options)
    folder = home.search(name)
    if not folder.is_dir():
        raise no_search(name, home)
    recorded = read_search(folder)
    again = f"--resume {name} --space {path}{home_option(options)}"
    if recorded is None or not is_running(folder):
        raise TunerError(f"nothing runs {name}; 'tuner submit {again}' goes on with it")
    change, text = edit_of(options, name)
    assert change is not None
    assert text is not None
    space = as_recorded(change(recorded.space), recorded.space, home)
    check_edit(recorded.space, space, name)
    edits = listed(changes(recorded.space, space), "and")
    if not edits:
        results.write_line(f"{path} changes nothing in {name}")
    elif needs_new_session(recorded.space, space):
        _restart(options, home, name, path, again)
    elif not _is_taken(EditRequest(name, home, space, text)):
        _submit(options, home, name, path, again)
    else:
        results.write_line(f"{name} goes on with another {edits}")
    print_json(options, SearchStatus.of(home, name))
    return 0


def _is_taken(request: EditRequest) -> bool:
    """Return True if the driver of a search takes an edit, False if it has ended before.

    Raises:
        TunerError: if it refuses, or does not answer.
    """
    try:
        if request.wait():
            return True
    finally:
        request.withdraw()
    if request.is_running:
        raise TunerError(
            f"the driver of {request.name} has not taken the edit, which is withdrawn; 'tuner "
            f"status {request.name}' says what it does"
        )
    return False


def _restart(options: argparse.Namespace, home: Home, name: str, path: str, again: str) -> None:
    """Pause a search after the reports under way, and let it go on with new workers."""
    _, progress = consoles(options)
    stop(
        name, home,
        on_wait=lambda holder: progress.write_line(f"waiting for the reports of {holder.text}"),
    )  # fmt: skip
    _submit(options, home, name, path, again)


def _submit(options: argparse.Namespace, home: Home, name: str, path: str, again: str) -> None:
    submission = submit(name, home, ["--resume", name, "--space", path])
    if status := submission.wait(say):
        raise TunerError(
            f"{name} does not go on: {submission.who} ended with status {status}; 'tuner logs "
            f"{name}' says why, and 'tuner submit {again}' tries again"
        )
    results, _ = consoles(options)
    results.write_line(f"{name} goes on with {path}, run by {submission.who}")
