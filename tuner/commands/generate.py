"""`tuner generate`: what trained trials write."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tuner.commands.output import check_run, consoles, home_of, in_utf8, loaded, print_json, say
from tuner.errors import TunerError
from tuner.formatting import short_run

if TYPE_CHECKING:
    from tuner.trained.load_trial import TrainedTrial

_SETTINGS = ("temperature", "top_k", "top_p", "repetition_penalty", "max_tokens", "seed")


def generate(options: argparse.Namespace) -> int:
    """Continue a prompt with one or several trained trials."""
    check_run(options)
    if options.runs and (options.run or options.search):
        raise TunerError("give a run id, --search or --runs, not several of them")
    prompt = _prompt(options)

    from model.generation.settings import GenerationSettings
    from tuner.terminal.texts import TextsView, texts_of
    from tuner.tracking.record import Record
    from tuner.trained.generate import cut_note
    from tuner.trained.generate import generate as pieces_of

    results, progress = consoles(options)
    given = {name: getattr(options, name) for name in _SETTINGS}
    settings = GenerationSettings(**{k: v for k, v in given.items() if v is not None})
    record = Record(home_of(options).tracking_uri)  # all are looked up before one is trained again
    asked = options.runs or [options.run] if options.runs or options.run else []
    found = [record.trial(run) for run in asked] or [record.best(record.search(options.search))]
    for trial in found:
        if record.spec(trial).architecture.n_encoder_layers and not prompt:
            which = f"trial {trial.number} of {trial.search}"
            raise TunerError(f"{which} translates; give it a text to read by --prompt")
    trials = [loaded(options, progress, trial.run_id) for trial in found]
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
        progress.print(titles[0], style="dim", highlight=False, soft_wrap=True)
    prompts = [
        "" if trained.spec.architecture.n_encoder_layers else prompt  # a source is translated
        for trained in trials
        for _ in range(samples)
    ]
    view = TextsView(results, titles, prompts)
    began = time.monotonic()
    pieces = pieces_of(trials, prompt, settings=settings, samples=samples)
    total, tokens = texts_of(view, pieces, samples)
    seconds = time.monotonic() - began
    progress.print(
        f"{total:,} tokens, {total / seconds:,.0f} a second", style="dim", highlight=False
    )
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
                    "text": view.texts[place * samples + number],
                    "tokens": tokens[place * samples + number],
                }
                for place, trained in enumerate(trials)
                for number in range(samples)
            ],
            "settings": settings.model_dump(),
            "tokens_per_second": total / seconds,
        },
    )
    return 0


def _prompt(options: argparse.Namespace) -> str:
    """The text to continue: given, from a file, or from standard input."""
    if options.file is None and options.prompt != "-":
        return in_utf8(options.prompt or "")
    source: Any = sys.stdin if options.file is None else Path(options.file)
    try:
        text = source.read() if options.file is None else source.read_text(encoding="utf-8")
    except OSError as error:
        raise TunerError(
            f"cannot read {options.file or 'standard input'}: {error.strerror}"
        ) from error
    except UnicodeDecodeError as error:
        where = options.file or "standard input"
        raise TunerError(f"{where} is not UTF-8 text (byte {error.start})") from error
    return str(text)


def _title(trained: TrainedTrial) -> str:
    """`trial 7 of lm-3, val_loss 3.2145, run 1a2b3c4d`."""
    trial = trained.trial
    loss = trial.metrics.get("val_loss")
    value = "" if loss is None else f"val_loss {loss:.4f}, "
    return f"trial {trial.number} of {trial.search}, {value}run {short_run(trial.run_id)}"
