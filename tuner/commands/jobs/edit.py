"""`tuner edit`: give a search that runs another space."""

from __future__ import annotations

import argparse
from pathlib import Path

from tuner.commands.jobs.remote import client_of
from tuner.commands.output import consoles, home_of, home_option, print_json, say, say_study
from tuner.commands.search import edit_of
from tuner.errors import TunerError
from tuner.jobs.status import SearchStatus, no_search
from tuner.jobs.stop import stop
from tuner.jobs.submit import submit
from tuner.journal.edit import check_edit
from tuner.journal.journal import read_search
from tuner.lease.folder import is_running
from tuner.space_file.yaml_file import YamlFile


def run_edit(options: argparse.Namespace) -> int:
    """Pause a search after the reports under way, and let it go on with another space."""
    results, progress = consoles(options)
    say_study(options)
    name, path = options.search, YamlFile(options.space).name
    if (client := client_of(options)) is not None:
        search = client.edit(name, Path(path).read_text(encoding="utf-8"), path)
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
    change, _ = edit_of(options, name)
    if change is not None:
        check_edit(recorded.space, change(recorded.space), name)
    stop(
        name, home,
        on_wait=lambda holder: progress.write_line(f"waiting for the reports of {holder.text}"),
    )  # fmt: skip
    submission = submit(name, home, ["--resume", name, "--space", path])
    if status := submission.wait(say):
        raise TunerError(
            f"{name} does not go on: {submission.who} ended with status {status}; 'tuner logs "
            f"{name}' says why, and 'tuner submit {again}' tries again"
        )
    results.write_line(f"{name} goes on with {path}, run by {submission.who}")
    print_json(options, SearchStatus.of(home, name))
    return 0
