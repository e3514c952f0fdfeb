"""`tuner export`: write a trained trial for other tools."""

from __future__ import annotations

import argparse
import zipfile
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryFile
from typing import TYPE_CHECKING, Any

from model.exchange.folder import check_target, unpack_folder
from tuner.commands.jobs.remote import client_of, operated, trial_of
from tuner.commands.output import check_run, consoles, load_weights, print_json, recorded_home, say
from tuner.errors import StoreError, TunerError
from tuner.trained.load_search import load_search
from tuner.trained.recorded_trials import RecordedTrials

if TYPE_CHECKING:
    from tuner.serve.remote.client import Client


def run_export(options: argparse.Namespace) -> int:
    """Write a trained trial in another format."""
    check_run(options)
    check_target(Path(options.output), force=options.force)
    if (client := client_of(options)) is not None:
        return _show(options, _fetched(options, client))
    from tuner.trained.export import check_export, export  # loads torch

    home = recorded_home(options)
    recorded = RecordedTrials.of(home).find(options.run, options.search)
    trial = recorded.record
    # fail before weights are loaded or the trial is retrained
    check_export(recorded.spec, options.output, options.format, force=options.force)
    _, progress = consoles(options)
    trained = load_weights(options, progress, trial.run_id)
    try:
        result = load_search(trial.search, home=home)
    except StoreError:
        raise
    except TunerError:
        result = None  # its journal is elsewhere or damaged: the README says less
    if trained.note:
        say(trained.note)
    files = export(trained, options.output, options.format, force=options.force, result=result)
    found = {
        "run": trial.run_id,
        "trial": trial.number,
        "search": trial.search,
        "format": options.format,
        "folder": str(Path(options.output).absolute()),
        "files": [path.name for path in files],
        "bytes": sum(path.stat().st_size for path in files),
        "spec_hash": trained.spec.hash,
        "weights": trained.origin,
    }
    return _show(options, found)


def _fetched(options: argparse.Namespace, client: Client) -> Mapping[str, Any]:
    """Let a server export a trial, and write its files; return what its command has printed."""
    search, trial = trial_of(options.run, options.search)
    operation = operated(options, client, search, "export", trial=trial, format=options.format)
    with TemporaryFile() as packed:
        client.save(operation.id, operation.files[0], packed)
        try:
            unpack_folder(zipfile.ZipFile(packed), Path(options.output))
        except zipfile.BadZipFile as error:
            raise TunerError(f"{client.url} has sent no zip file; ask again") from error
    return {**(operation.result or {}), "folder": str(Path(options.output).absolute())}


def _show(options: argparse.Namespace, found: Mapping[str, Any]) -> int:
    """Print what was exported, here or on a server, as its JSON says."""
    results, _ = consoles(options)
    results.write_line(
        f"trial {found['trial']} of {found['search']} is in {Path(options.output)}: "
        f"{len(found['files'])} files, {found['bytes'] / 1e6:.1f} MB, format {found['format']}; "
        f"README.md says how to use them"
    )
    print_json(options, found)
    return 0
