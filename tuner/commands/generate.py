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
from tuner.trained.recorded_trials import RecordedTrials

if TYPE_CHECKING:
    from tuner.trained.load_trial import TrainedTrial


def run_generate(options: argparse.Namespace) -> int:
    """Continue a prompt with one or several trained trials."""
    check_run(options)
    if options.runs and (options.run or options.search):
        raise TunerError("give a run id, --search or --runs, not several of them")
    prompt = _prompt(options)

    from tuner.terminal.texts import TextsView, show_texts
    from tuner.trained.generate import cut_note, generate  # loads torch

    results, progress = consoles(options)
    values = {name: getattr(options, name) for name in GenerationSettings.model_fields}
    settings = GenerationSettings(**{k: v for k, v in values.items() if v is not None})
    # look up all trials before the first one is retrained
    recorded = RecordedTrials.of(recorded_home(options))
    found = [recorded.find(run, options.search) for run in options.runs or [options.run]]
    for trial in found:
        if trial.spec.architecture.n_encoder_layers and not prompt:
            which = f"trial {trial.record.number} of {trial.record.search}"
            raise TunerError(f"{which} is an encoder–decoder; give it a source text with --prompt")
    trials = [load_weights(options, progress, trial.record.run_id) for trial in found]
    for trained in trials:
        if trained.note:
            say(f"{_title(trained)}: {trained.note}")
        note = cut_note(trained.spec, trained.tokenizer, prompt)
        if note:
            say(f"{_title(trained)}: {note}")
    samples = options.samples
    titles = [
        _title(trained) + (f", sample {number + 1}" if samples > 1 else "")
        for trained in trials
        for number in range(samples)
    ]
    if len(titles) == 1:
        progress.write_line(titles[0], style="dim")
    prompts = [
        "" if trained.spec.architecture.n_encoder_layers else prompt  # not continued
        for trained in trials
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
            "prompt": prompt,
            "texts": [
                {
                    "run": trained.trial.run_id,
                    "trial": trained.trial.number,
                    "search": trained.trial.search,
                    "sample": number,
                    "text": view.texts[index * samples + number],
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


def _prompt(options: argparse.Namespace) -> str:
    """Return the prompt: of --prompt, of a file, or of standard input."""
    if options.file is None and options.prompt != "-":
        return in_utf8(options.prompt or "")
    source = "standard input" if options.file is None else options.file
    try:
        if options.file is None:
            return in_utf8(sys.stdin.read())
        return Path(options.file).read_text(encoding="utf-8")
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
