"""`tuner search` and `tuner replay`: the commands that train."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from signal import SIGINT
from typing import TYPE_CHECKING, Any

from tuner.commands.jobs.remote import client_of, operated, trial_of
from tuner.commands.output import (
    as_json,
    check_run,
    consoles,
    home_of,
    print_json,
    recorded_home,
    report_line,
    say,
    say_study,
)
from tuner.errors import Interrupted, ResultError, TunerError
from tuner.home.home import Home
from tuner.journal.edit import edited, edited_section, kept_overrides
from tuner.journal.journal import read_search
from tuner.space.estimate import estimated_facts
from tuner.space.remarks import remarks, without_copies
from tuner.space.settings import EngineConfig
from tuner.space.space import SearchSpace
from tuner.space_file.load import read_space
from tuner.space_file.overrides import Override
from tuner.space_file.yaml_file import YamlFile
from tuner.terminal.progress import show_progress
from tuner.texts.formatting import short_run
from tuner.tracking.metrics import with_counts

if TYPE_CHECKING:
    from tuner.results.result import SearchResult


def run_search(options: argparse.Namespace) -> int:
    """Find the best hyperparameters."""
    if options.space:
        say_study(options)
    name = _begun(options)
    if name:
        edit, space_text = edit_of(options, name)
    else:
        space, space_text = read_space(options.space, options.overrides)
        from tuner.validation.explanation import memory_remarks

        facts = estimated_facts(space)
        memory = [] if options.address else memory_remarks(space, facts)
        for remark in (*remarks(space, facts), *memory):
            say(f"tuner search: note: {remark}")
        space = without_copies(space)
    home = home_of(options)

    # imported when the space is valid: a mistake in it is reported at once
    from tuner.driver.search import resume, search
    from tuner.terminal.live import view_on
    from tuner.terminal.summary import print_summary

    results, progress = consoles(options)
    common: dict[str, Any] = {
        "home": home,
        "view": None if options.quiet else view_on(progress),
        "space_text": space_text,
        "fresh": options.fresh,
        "debug": options.debug,
        "address": options.address,
        "notify": options.notify,
        "on_result": partial(print_summary, results, home=options.home),
    }
    if name:
        result = resume(name, edit=edit, **common)
    else:
        result = search(space, name=options.name, **common)
    best = result.best
    print_json(
        options,
        {
            "search": result.name,
            "best_trial": best.number,
            "best_run": result.run_ids.get(best.number),
            "hyperparameters": best.spec.rows,
            "architecture": best.spec.architecture.model_dump(),
            "budgets": [
                {"tokens": n, "trial": t.number, result.metric: t.objective(result.metric)}
                for n, t in result.best_by_budget.items()
            ],
            **with_counts(result.summary()),
            "confirmation": result.confirmation.as_json if result.confirmation else None,
            "learned": {
                "sentences": result.learned,
                "sources": [asdict(source) for source in result.proposals.sources],
                "draws": result.proposals.draws,
                "contradicted": bool(result.distrust),
            },
            "left": as_json(result.left),
            "comparison": result.verdict.as_json if result.verdict else None,
            "advice": result.advice,
            "limit": result.limit,
            "halted": result.halted,
            "unsynced": result.problem is not None,
        },
    )
    _warn(result)
    if result.halted == "interrupted" or (result.signal and result.problem):
        return Interrupted(result.signal or SIGINT).exit_status
    return ResultError.exit_status if result.lost else 0


def _warn(result: SearchResult) -> None:
    """Print what could not be saved, and how to repair it."""
    if result.problem:
        sync = f"'tuner sync {result.name}'"
        hint = "" if sync in result.problem else f"; {sync} sends what is missing"
        say(f"tuner search: warning: {result.problem}{hint}")
    if result.lost:
        say(f"tuner search: {result.lost}; 'tuner search --resume {result.name}' repairs it")


def _begun(options: argparse.Namespace) -> str | None:
    """Return the search that goes on: --resume, or --name if the home or the storage has it."""
    name: str | None = options.resume or options.name
    if not name:
        return None
    folder = Home.of(options.home).search(name)
    if read_search(folder) is None and (url := _storage(options)):
        from tuner.storage.mirror import restore

        restore(url, home_of(options), name, lambda text: say(f"tuner search: {text}"))
    return name if options.resume or read_search(folder) else None


def _storage(options: argparse.Namespace) -> str | None:
    """Return the `engine.storage` of the command line and its file."""
    if options.space:
        return read_space(options.space, options.overrides)[0].engine.storage
    told = [override for override in options.overrides if override.path == ("engine", "storage")]
    return edited_section(EngineConfig(), told[-1], "engine").storage if told else None


def edit_of(
    options: argparse.Namespace, name: str
) -> tuple[Callable[[SearchSpace], SearchSpace] | None, str | None]:
    """Return the change of the recorded space of a resumed search, and the text of the new file."""
    if options.space:
        space, space_text = read_space(options.space, options.overrides, _kept(options, name))

        edited_space = without_copies(space)
        return lambda recorded: edited_space, space_text
    if not options.overrides:
        return None, None
    return lambda recorded: edited(recorded, options.overrides, name), None


def _kept(options: argparse.Namespace, name: str) -> Callable[[YamlFile], Sequence[Override]]:
    """Return a function from the new file to what earlier sessions were told and still holds."""
    recorded = read_search(Home.of(options.home).search(name))

    def kept(file: YamlFile) -> Sequence[Override]:
        if recorded is None:  # `resume` says why
            return ()
        told = kept_overrides(file, recorded.space_text, recorded.space, options.overrides)
        if told:
            settings = ", ".join(f"{'.'.join(o.path)}={o.text}" for o in told)
            say(f"{name} keeps {settings} of its earlier command line")
        return told

    return kept


def run_replay(options: argparse.Namespace) -> int:
    """Retrain a trial and verify that it reproduces."""
    check_run(options)
    if (client := client_of(options)) is not None:
        if options.prepared:
            raise TunerError("--prepared is not sent to a server; leave it out")
        search, number = trial_of(options.run, options.search)
        operation = operated(options, client, search, "replay", trial=number)
        return _show_replay(options, operation.result or {})
    from tuner.trained.replay import replay  # loads torch

    _, progress = consoles(options)

    def on_report(number: int, count: int, report: Any) -> None:
        progress.print(report_line(number, count, report))

    home = recorded_home(options)
    home.set_umask()
    with show_progress(progress) as on_progress:
        result = replay(
            options.run,
            search=options.search,
            home=home,
            on_report=on_report,
            on_progress=on_progress,
            prepared=options.prepared,
        )
    trial = result.trial
    return _show_replay(
        options,
        {
            "verdict": str(result.verdict),
            "sentence": result.sentence,
            "run": trial.run_id,
            "trial": trial.number,
            "status": trial.status,
            "search": trial.search,
            "reports": result.reports,
            "differences": len(result.differences),
            "spec_hash": result.spec.hash,
            "changed": {k: list(v) for k, v in result.changed.items()},
        },
    )


def _show_replay(options: argparse.Namespace, found: Mapping[str, Any]) -> int:
    """Print the verdict of a replay, here or on a server, as its JSON says; return the status."""
    results, _ = consoles(options)
    verdict = str(found["verdict"])
    styles = {"bit-exact": "bold green", "within tolerance": "yellow"}
    run = short_run(str(found["run"]))
    results.write_line(
        f"trial {found['trial']} of {found['search']} (run {run}, {found['status']}):"
    )
    results.write_line(str(found["sentence"]), styles.get(verdict, "bold red"))
    print_json(options, found)
    return 1 if verdict == "different" else 0
