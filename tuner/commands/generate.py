"""`tuner generate`: let trained trials write text."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from model.generation.settings import GenerationSettings
from tuner.commands.output import (
    check_run,
    consoles,
    in_utf8,
    load_weights,
    print_json,
    recorded_home,
    say,
)
from tuner.errors import TunerError
from tuner.texts.formatting import short_run
from tuner.trained.recorded_trials import RecordedTrial, RecordedTrials

if TYPE_CHECKING:  # loads torch
    from model.generation.prompts import Prompt
    from tuner.trained.load_trial import TrainedTrial


def run_generate(options: argparse.Namespace) -> int:
    """Continue a prompt with one or several trained trials."""
    check_run(options)
    if options.runs and (options.run or options.search):
        raise TunerError("give a run id, --search or --runs, not several of them")
    text, system = _prompt(options), _system(options)
    if options.raw and system is not None:
        raise TunerError("--raw reads the prompt as it is; leave out --system, or --raw")

    from model.generation.prompts import Prompt
    from tuner.terminal.texts import TextsView, show_texts
    from tuner.trained.generate import cut_note, generate  # loads torch

    results, progress = consoles(options)
    values = {name: getattr(options, name) for name in GenerationSettings.model_fields}
    settings = GenerationSettings(**{k: v for k, v in values.items() if v is not None})
    # look up all trials before the first one is retrained
    recorded = RecordedTrials.of(recorded_home(options))
    found = [recorded.find(run, options.search) for run in options.runs or [options.run]]
    prompt = Prompt(text, options.raw, system)
    for trial in found:
        _check_prompt(trial, prompt)
    trials = [load_weights(options, progress, trial.record.run_id) for trial in found]
    for trained in trials:
        if trained.note:
            say(f"{_title(trained)}: {trained.note}")
        note = cut_note(trained.spec, trained.tokenizer, prompt)
        if note:
            say(f"{_title(trained)}: {note}")
    answers = [prompt.is_message(trained.spec) for trained in trials]
    samples = options.samples
    titles = [
        _title(trained) + (f", sample {number + 1}" if samples > 1 else "")
        for trained in trials
        for number in range(samples)
    ]
    if len(titles) == 1:
        progress.write_line(titles[0], style="dim")
    prompts = [
        "" if is_answer or trained.spec.architecture.n_encoder_layers else text  # not continued
        for trained, is_answer in zip(trials, answers, strict=True)
        for _ in range(samples)
    ]
    view = TextsView(results, titles, prompts)
    started = time.monotonic()
    pieces = generate(trials, prompt, settings=settings, samples=samples)
    total, tokens = show_texts(view, pieces, samples)
    seconds = time.monotonic() - started
    progress.print(f"{total:,} tokens, {total / seconds:,.0f} tokens/s", style="dim")
    print_json(
        options,
        {
            "prompt": text,
            "system": system,
            "texts": [
                {
                    "run": trained.trial.run_id,
                    "trial": trained.trial.number,
                    "search": trained.trial.search,
                    "sample": number,
                    "text": view.texts[index * samples + number],
                    "is_answer": answers[index],
                    "tokens": tokens[index * samples + number],
                }
                for index, trained in enumerate(trials)
                for number in range(samples)
            ],
            "settings": settings.model_dump(),
            "tokens_per_second": total / seconds,
        },
    )
    return 0


def _check_prompt(trial: RecordedTrial, prompt: Prompt) -> None:
    """Raise TunerError if a trial cannot read the prompt."""
    which = f"trial {trial.record.number} of {trial.record.search}"
    if trial.spec.architecture.n_encoder_layers and not prompt.text:
        raise TunerError(f"{which} is an encoder–decoder; give it a source text with --prompt")
    if prompt.system is not None and not prompt.is_message(trial.spec):
        raise TunerError(
            f"{which} reads no messages; --system is for a --prompt to a model that has a chat "
            f"template and was tuned on examples"
        )


def _prompt(options: argparse.Namespace) -> str:
    """Return the prompt: of --prompt, of a file, or of standard input."""
    if options.file is None and options.prompt != "-":
        return in_utf8(options.prompt or "")
    return _read(options.file)


def _system(options: argparse.Namespace) -> str | None:
    """Return the message of the system: of --system, or of a file; None for none."""
    if options.system_file is not None:
        return _read(options.system_file)
    return None if options.system is None else in_utf8(options.system)


def _read(file: str | None) -> str:
    """Return the text of a file, or of standard input for None."""
    source = "standard input" if file is None else file
    try:
        if file is None:
            return in_utf8(sys.stdin.read())
        return Path(file).read_text(encoding="utf-8")
    except OSError as error:
        raise TunerError(f"cannot read {source}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise TunerError(f"{source} is not UTF-8 text (byte {error.start})") from error


def _title(trained: TrainedTrial) -> str:
    """Return a title such as `trial 7 of lm-3, val_loss 3.2145, run 1a2b3c4d`."""
    trial = trained.trial
    loss = trial.metrics.get("val_loss")
    value = "" if loss is None else f"val_loss {loss:.4f}, "
    return f"trial {trial.number} of {trial.search}, {value}run {short_run(trial.run_id)}"
