"""`tuner export`: write a trained trial for other tools."""

from __future__ import annotations

import argparse
from pathlib import Path

from model.exchange.folder import check_target
from tuner.commands.output import check_run, consoles, load_weights, print_json, recorded_home, say
from tuner.errors import StoreError, TunerError
from tuner.trained.load_search import load_search
from tuner.trained.recorded_trials import RecordedTrials


def run_export(options: argparse.Namespace) -> int:
    """Write a trained trial in another format."""
    check_run(options)
    check_target(Path(options.output), force=options.force)
    from tuner.trained.export import check_export, export  # loads torch

    home = recorded_home(options)
    recorded = RecordedTrials.of(home).find(options.run, options.search)
    trial = recorded.record
    # fail before weights are loaded or the trial is retrained
    check_export(recorded.spec, options.output, options.format, force=options.force)
    results, progress = consoles(options)
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
    size = sum(path.stat().st_size for path in files)
    results.write_line(
        f"trial {trial.number} of {trial.search} is in {Path(options.output)}: {len(files)} files, "
        f"{size / 1e6:.1f} MB, format {options.format}; README.md says how to use them"
    )
    print_json(
        options,
        {
            "run": trial.run_id,
            "trial": trial.number,
            "search": trial.search,
            "format": options.format,
            "folder": str(Path(options.output).absolute()),
            "files": [path.name for path in files],
            "bytes": size,
            "spec_hash": trained.spec.hash,
            "weights": trained.origin,
        },
    )
    return 0
