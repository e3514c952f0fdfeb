"""`tuner suggest`: the settings that earlier searches and the atlas say are best."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from model.files import replacing
from tuner.commands.output import consoles, print_json, say, say_study
from tuner.errors import TunerError
from tuner.home.home import Home
from tuner.texts.formatting import listed, number

if TYPE_CHECKING:  # numpy and scipy are loaded once the options are known to be right
    from tuner.knowledge.answer import Answer
    from tuner.knowledge.library import Library
    from tuner.knowledge.record import Promise
    from tuner.knowledge.suggestion import SuggestedSetting
    from tuner.terminal.console import PlainConsole


def run_suggest(options: argparse.Namespace) -> int:
    """Suggest settings for a space or a size, or list what became of earlier suggestions."""
    home = Home.of(options.home)
    if options.record:
        return _record(options, home)
    if options.data and not options.parameters:
        raise TunerError("--data belongs to --parameters; a space names its own data")
    if bool(options.parameters) != bool(options.tokens):
        raise TunerError("--parameters and --tokens belong together; give both")
    if options.output and not options.space:
        raise TunerError("-o writes a space with priors, and needs the --space to begin with")
    if options.output and Path(options.output).exists():
        raise TunerError(f"{options.output} exists already; name another file")
    if options.space:
        answer, text = _answer_for_space(options, home)
    else:
        answer, text = _answer_for_size(options, home), ""
    _print(options, answer)
    if options.output:
        from tuner.space_file.overrides import without_overrides
        from tuner.space_file.text_edit import with_values

        text = with_values(without_overrides(text), options.overrides)
        _write_space(Path(options.output), text, answer)
    file = _predict(home, answer)
    print_json(options, {**answer.as_json, "prediction": file})
    return 0


def _answer_for_size(options: argparse.Namespace, home: Home) -> Answer:
    from tuner.knowledge.answer import answer_for
    from tuner.knowledge.basin import TargetCell
    from tuner.knowledge.library import text_named

    text = text_named(options.data, home) if options.data else ""
    target = TargetCell(options.parameters, options.tokens, text)
    return answer_for(_library(options, home), target)


def _answer_for_space(options: argparse.Namespace, home: Home) -> tuple[Answer, str]:
    """Return the answer for a space, and the text of its file."""
    from tuner.knowledge.answer import answer_for_space
    from tuner.space_file.load import read_space
    from tuner.validation.explanation import explain

    library = _library(options, home)
    say_study(options)
    space, text = read_space(options.space, options.overrides)
    explanation = explain(space, home.readable(say), options.space)
    return answer_for_space(library, explanation.space, explanation.facts), text


def _library(options: argparse.Namespace, home: Home) -> Library:
    from tuner.knowledge.library import Library, collect

    names = options.learn_from
    if names == ["off"]:
        return Library()
    return collect(home, None if names in (None, ["auto"]) else names)


def _print(options: argparse.Namespace, answer: Answer) -> None:
    console, _ = consoles(options)
    target = answer.target
    console.table(
        f"{target.weights:,.0f} weights in the blocks, {target.tokens:,.0f} training tokens",
        ["", "suggested", "90 % interval of the best"],
        [[s.setting.symbol, *_cells(s)] for s in answer.settings],
    )
    _print_outlook(console, answer)
    if answer.sources:
        names = listed([source.text for source in answer.sources], "and")
        console.print(f"From {names}, and published laws.")
    for note in (*answer.warnings, *answer.left_out):
        console.print(f"Note: {note}.", style="yellow")


def _cells(suggested: SuggestedSetting) -> tuple[str, str]:
    """Return value and interval as text."""
    e = suggested.estimate
    value = f"{_rounded(e.value)}{suggested.setting.unit_text}"
    return value, f"{_rounded(e.low)} … {_rounded(e.high)}"


def _rounded(value: float) -> str:
    return f"{value:,.0f}" if value >= 1000 else number(float(f"{value:.3g}"))


def _print_outlook(console: PlainConsole, answer: Answer) -> None:
    from tuner.knowledge.answer import TRIALS

    regret = answer.regret
    text = (
        f"Expected regret {100 * regret.value:.2g} % ({100 * regret.low:.2g} … "
        f"{100 * regret.high:.2g} %); of the best of {TRIALS} such trials "
        f"{100 * answer.regret_of_best:.2g} %."
    )
    if answer.loss is not None:
        text = f"Expected val_loss {answer.loss.text('.3f')}. {text}"
    console.print(text)


def _write_space(path: Path, text: str, answer: Answer) -> None:
    """Write the file of the space with the suggestions as priors."""
    from tuner.space_file.prior import add_priors

    try:
        with replacing(path) as file:
            file.write(add_priors(text, answer.priors).encode())
    except OSError as error:
        raise TunerError(f"cannot write {path}: {error.strerror}; choose another file") from error
    say(f"wrote {path}; 'tuner search --space {path}' begins with it")


def _predict(home: Home, answer: Answer) -> Path | None:
    """Write the prediction into a home that exists; return its file."""
    from tuner.scaling.prediction import write_prediction

    if answer.loss is None or not home.root.is_dir():
        return None
    path, _ = write_prediction(answer.prediction(), home)
    say(f"wrote {path}; 'tuner suggest --record' says later whether it held")
    return path


def _record(options: argparse.Namespace, home: Home) -> int:
    from tuner.knowledge.record import promises

    found = promises(home)
    console, _ = consoles(options)
    rows = [row for promise in found for row in _promise_rows(promise)]
    columns = ["predicted", "for", "", "value", "90 % interval", "measured", "search", ""]
    if rows:
        console.table("suggestions and what came out", columns, rows)
    tested = [held for promise in found for held in promise.holds.values()]
    if tested:
        console.print(f"{sum(tested)} of {len(tested)} intervals held; 90 % should.")
    elif found:
        console.print("No search of a predicted size and budget has begun since.")
    else:
        console.print(f"No suggestion is recorded in {home.root}.")
    print_json(options, {"predictions": [promise.as_json for promise in found]})
    return 0


def _promise_rows(promise: Promise) -> list[list[str]]:
    prediction = promise.prediction
    target = prediction.target
    rows = []
    for name, value in prediction.values.items():
        measured, holds = promise.measured.get(name), promise.holds.get(name)
        rows.append(
            [
                f"{prediction.date:%Y-%m-%d}",
                f"{target['parameters']:,.0f} weights, {target['tokens']:,.0f} tokens",
                name, _rounded(value.value), f"{_rounded(value.low)} … {_rounded(value.high)}",
                "" if measured is None else _rounded(measured), promise.search or "",
                "" if holds is None else "holds" if holds else "misses",
            ]
        )  # fmt: skip
    return rows
