"""`tuner generate`: let trained trials write text."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from model.generation.settings import GenerationSettings
from tuner.commands.jobs.remote import client_of, operated, trial_of
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

if TYPE_CHECKING:
    from model.generation.prompts import Prompt  # loads torch
    from tuner.serve.remote.client import Client


def run_generate(options: argparse.Namespace) -> int:
    """Continue a prompt with one or several trained trials."""
    check_run(options)
    if options.runs and (options.run or options.search):
        raise TunerError("give a run id, --search or --runs, not several of them")
    said, system = _prompt(options), _system(options)
    if options.raw and system is not None:
        raise TunerError("--raw reads the prompt as it is; leave out --system, or --raw")
    values = {name: getattr(options, name) for name in GenerationSettings.model_fields}
    settings = GenerationSettings(**{k: v for k, v in values.items() if v is not None})
    if (client := client_of(options)) is not None:
        return _from_server(options, client, said, system, settings)

    from model.generation.prompts import Prompt
    from tuner.terminal.texts import TextsView, show_texts
    from tuner.trained.generate import cut_note, generate  # loads torch

    results, progress = consoles(options)
    # look up all trials before the first one is retrained
    recorded = RecordedTrials.of(recorded_home(options))
    found = [recorded.find(run, options.search) for run in options.runs or [options.run]]
    prompt = Prompt(said, options.raw, system)
    for trial in found:
        _check_prompt(trial, prompt)
    trials = [load_weights(options, progress, trial.record.run_id) for trial in found]
    samples = options.samples
    texts: list[dict[str, Any]] = [
        {
            "run": trained.trial.run_id,
            "trial": trained.trial.number,
            "search": trained.trial.search,
            "val_loss": trained.trial.metrics.get("val_loss"),
            "sample": number,
            "is_answer": is_answer,
            # an answer or a translation does not continue it
            "continues": "" if is_answer or trained.spec.architecture.n_encoder_layers else said,
        }
        for trained in trials
        for is_answer in [prompt.is_message(trained.spec)]
        for number in range(samples)
    ]
    for trained, text in zip(trials, texts[::samples], strict=True):
        for note in (trained.note, cut_note(trained.spec, trained.tokenizer, prompt)):
            if note:
                say(f"{_title(text)}: {note}")
    view = TextsView(results, _titles(options, texts), [text["continues"] for text in texts])
    started = time.monotonic()
    pieces = generate(trials, prompt, settings=settings, samples=samples)
    total, tokens = show_texts(view, pieces, samples)
    for text, written, count in zip(texts, view.texts, tokens, strict=True):
        text |= {"text": written, "tokens": count}
    seconds = time.monotonic() - started
    return _end(options, said, system, settings, texts, total / seconds)


def _from_server(
    options: argparse.Namespace, client: Client, said: str, system: str | None,
    settings: GenerationSettings,
) -> int:  # fmt: skip
    """Let a server write the texts, and show them when they are complete."""
    from tuner.terminal.texts import TextsView
    from tuner.trained.generate import Piece

    texts: list[dict[str, Any]] = []
    rate = 0.0
    for run in options.runs or [options.run]:
        search, trial = trial_of(run, options.search)
        operation = operated(
            options, client, search, "generate", trial=trial, prompt=said, system=system,
            raw=options.raw, samples=options.samples, **settings.model_dump(),
        )  # fmt: skip
        found = operation.result or {}
        texts += found.get("texts", ())
        rate = found.get("tokens_per_second", 0.0)
    results, _ = consoles(options)
    view = TextsView(results, _titles(options, texts), [text["continues"] for text in texts])
    with view:
        for number, text in enumerate(texts):
            view.add(number, Piece(0, number, text["text"], has_ended=True))
    return _end(options, said, system, settings, texts, rate)


def _titles(options: argparse.Namespace, texts: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the titles of texts; that of a single one is printed, since no panel shows it."""
    samples = options.samples
    titles = [
        _title(text) + (f", sample {text['sample'] + 1}" if samples > 1 else "") for text in texts
    ]
    if len(titles) == 1:
        _, progress = consoles(options)
        progress.write_line(titles[0], style="dim")
    return titles


def _end(
    options: argparse.Namespace, said: str, system: str | None, settings: GenerationSettings,
    texts: Sequence[Mapping[str, Any]], tokens_per_second: float,
) -> int:  # fmt: skip
    """Print how fast texts were written, here or on a server, and the object of --json."""
    _, progress = consoles(options)
    total = sum(text["tokens"] for text in texts)
    progress.print(f"{total:,} tokens, {tokens_per_second:,.0f} tokens/s", style="dim")
    print_json(
        options,
        {
            "prompt": said,
            "system": system,
            "texts": texts,
            "settings": settings.model_dump(),
            "tokens_per_second": tokens_per_second,
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


def _title(text: Mapping[str, Any]) -> str:
    """Return a title such as `trial 7 of lm-3, val_loss 3.2145, run 1a2b3c4d`."""
    loss = text["val_loss"]
    value = "" if loss is None else f"val_loss {loss:.4f}, "
    return f"trial {text['trial']} of {text['search']}, {value}run {short_run(text['run'])}"
