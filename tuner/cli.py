"""The commands. They are thin: all that they do can be done from Python.

Exit status 0: done; 1: the result is bad; 2: bad input or usage; 130: interrupted. Heavy modules
are imported where a command needs them, so that `tuner --help` answers at once.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TextIO

from tuner.arguments import parse
from tuner.errors import SpaceError, TunerError

if TYPE_CHECKING:
    from rich.console import Console

    from tuner.home import Home
    from tuner.space import SearchSpace

_INTERRUPTED = 130
_PIPE_WIDTH = 200


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; its exit status."""
    options = parse(arguments)
    try:
        status = _commands()[options.command](options)
    except KeyboardInterrupt:
        _say("interrupted; what was recorded is kept ('tuner list')")
        return _INTERRUPTED
    except BrokenPipeError:  # `tuner list | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        if options.debug or not _is_users(error):
            raise
        # mistakes of a file come as lines file:line:column, which editors can follow
        _say(str(error) if isinstance(error, SpaceError) else f"tuner {options.command}: {error}")
        return error.exit_status if isinstance(error, TunerError) else 2
    return status


def _is_users(error: Exception) -> bool:
    """Whether the user can put it right, so that a sentence says more than a traceback."""
    if isinstance(error, TunerError):
        return True
    # errors of `model`, which is not imported unless something raised; subclasses count
    names = {kind.__name__ for kind in type(error).__mro__}
    return not names.isdisjoint({"CorpusError", "CheckpointError"})


def _say(message: str) -> None:
    sys.stderr.write(f"{message}\n")


def _consoles(options: argparse.Namespace) -> tuple[Console, Console]:
    """Where results and where progress go. With --json only the object goes to standard output."""
    from rich.console import Console

    def console(stream: TextIO) -> Console:
        # a pipe has no width, and tables need not be cut for it
        width = None if stream.isatty() or "COLUMNS" in os.environ else _PIPE_WIDTH
        return Console(file=stream, width=width)

    progress = console(sys.stderr)
    return (progress if options.json else console(sys.stdout)), progress


def _print_json(options: argparse.Namespace, value: dict[str, Any]) -> None:
    if options.json:
        sys.stdout.write(json.dumps(value, ensure_ascii=False, allow_nan=False) + "\n")


def _home(options: argparse.Namespace) -> Home:
    from tuner.home import Home

    return Home.at(options.home)


def _space(options: argparse.Namespace) -> SearchSpace:
    from tuner.space_file import load_space

    return load_space(options.space, options.overrides)


# commands ----------------------------------------------------------------------------------


def _commands() -> Mapping[str, Callable[[argparse.Namespace], int]]:
    return {
        "search": _search,
        "sync": _sync,
        "replay": _replay,
        "ui": _ui,
        "validate": _validate,
        "symbols": _symbols,
        "list": _list,
        "show": _show,
        "data prepare": _data_prepare,
        "data info": _data_info,
        "data sample": _data_sample,
        "tokenizer train": _tokenizer_train,
        "tokenizer encode": _tokenizer_encode,
        "tokenizer decode": _tokenizer_decode,
        "tokenizer show": _tokenizer_show,
        "doctor": _doctor,
    }


def _search(options: argparse.Namespace) -> int:
    if options.resume:
        name, edit, space_text = options.resume, *_edit(options)
    else:
        from tuner.space_file import read_space

        space, space_text = read_space(options.space, options.overrides)
    home = _home(options)

    from tuner.live import LiveView, LogView
    from tuner.search import resume, search
    from tuner.summary import print_summary

    results, progress = _consoles(options)
    common: dict[str, Any] = {
        "home": home,
        "view": LiveView(progress) if progress.is_terminal else LogView(progress),
        "space_text": space_text,
        "fresh": options.fresh,
    }
    if options.resume:
        result = resume(name, edit=edit, **common)
    else:
        result = search(space, name=options.name, **common)
    print_summary(results, result, options.home)
    best = result.best
    _print_json(
        options,
        {
            "search": result.name,
            "best_trial": best.number,
            "best_run": result.run_ids.get(best.number),
            "hyperparameters": best.spec.hyperparameters.model_dump(),
            "architecture": best.spec.architecture.model_dump(),
            **result.summary(),
            "confirmation": result.confirmation.plain if result.confirmation else None,
            "advice": result.advice,
            "limit": result.limit,
            "halted": result.halted,
        },
    )
    if result.problem:
        _say(f"tuner search: {result.problem}")
        return TunerError.exit_status
    return _INTERRUPTED if result.halted == "interrupted" else 0


def _edit(
    options: argparse.Namespace,
) -> tuple[Callable[[SearchSpace], SearchSpace] | None, str | None]:
    """How a resumed search changes the recorded space, and the file that says so."""
    if options.space:
        from tuner.space_file import read_space

        space, space_text = read_space(options.space, options.overrides)
        return lambda recorded: space, space_text
    if not options.overrides:
        return None, None
    from tuner.history import edited

    return lambda recorded: edited(recorded, options.overrides, options.resume), None


def _replay(options: argparse.Namespace) -> int:
    from tuner.progress import shown
    from tuner.replay import Verdict, replay

    if options.run and options.search:
        raise TunerError("give a run id or --search, not both")
    results, progress = _consoles(options)

    def on_report(number: int, count: int, report: Any) -> None:
        progress.print(
            f"report {number}/{count}  step {report.step}  val_loss {report.val_loss:.6f}",
            highlight=False,
        )

    with shown(progress) as on_progress:
        result = replay(
            options.run,
            search=options.search,
            home=_home(options),
            on_report=on_report,
            on_progress=on_progress,
        )
    trial = result.trial
    style = {"bit-exact": "bold green", "within tolerance": "yellow"}.get(
        result.verdict, "bold red"
    )
    results.print(
        f"trial {trial.number} of {trial.search} (run {trial.run_id[:8]}, {trial.status}):",
        soft_wrap=True,
    )
    results.print(result.sentence, style=style, soft_wrap=True, highlight=False)
    _print_json(
        options,
        {
            "verdict": str(result.verdict),
            "run": trial.run_id,
            "trial": trial.number,
            "search": trial.search,
            "reports": result.reports,
            "differences": len(result.differences),
            "spec_hash": result.spec.hash,
            "changed": {k: list(v) for k, v in result.changed.items()},
        },
    )
    return 1 if result.verdict is Verdict.DIFFERENT else 0


def _sync(options: argparse.Namespace) -> int:
    from tuner.sync import print_synced

    results, _ = _consoles(options)
    _print_json(options, print_synced(results, _home(options), options.search))
    return 0


def _ui(options: argparse.Namespace) -> int:
    from tuner.ui import serve

    return serve(_home(options), options.host, options.port, _say)


def _validate(options: argparse.Namespace) -> int:
    from tuner.home import Home
    from tuner.inspect import describe_space

    space = _space(options)
    results, _ = _consoles(options)
    home = Home.of(options.home)  # not made: validating begins nothing
    described = describe_space(results, space, options.space, home, options.plot)
    _print_json(options, described)
    return 0


def _symbols(options: argparse.Namespace) -> int:
    from tuner.inspect import print_symbols

    results, _ = _consoles(options)
    _print_json(options, print_symbols(results))
    return 0


def _list(options: argparse.Namespace) -> int:
    from tuner.inspect import print_searches
    from tuner.record import Record

    results, _ = _consoles(options)
    _print_json(options, print_searches(results, Record(_home(options).tracking_uri)))
    return 0


def _show(options: argparse.Namespace) -> int:
    from tuner.comparison import print_comparison
    from tuner.inspect import print_search, print_trial
    from tuner.record import Record

    if options.run and options.by:
        raise TunerError("give a run id or --by, not both")
    results, _ = _consoles(options)
    record = Record(_home(options).tracking_uri)
    if options.by:
        shown = print_comparison(results, record, record.search(options.search), options.by)
    elif options.run:
        shown = print_trial(results, record, record.trial(options.run))
    else:
        shown = print_search(results, record, record.search(options.search))
    _print_json(options, shown)
    return 0


def _data_prepare(options: argparse.Namespace) -> int:
    from tuner.data import describe, prepare_corpus
    from tuner.progress import shown

    space, home = _space(options), _home(options)
    results, progress = _consoles(options)
    with shown(progress) as on_progress:
        corpus = prepare_corpus(space, home, options.processes, on_progress)
    _print_json(options, describe(results, space, corpus))
    return 0


def _data_info(options: argparse.Namespace) -> int:
    from tuner.data import cached_corpus, describe
    from tuner.home import Home

    space = _space(options)
    results, _ = _consoles(options)
    corpus = cached_corpus(space, options.space, Home.of(options.home))
    _print_json(options, describe(results, space, corpus))
    return 0


def _data_sample(options: argparse.Namespace) -> int:
    from tuner.data import prepare_corpus, print_sample
    from tuner.progress import shown

    space, home = _space(options), _home(options)
    results, progress = _consoles(options)
    with shown(progress) as on_progress:
        corpus = prepare_corpus(space, home, None, on_progress)
    _print_json(options, print_sample(results, space, corpus, options.sequences, options.seed))
    return 0


def _tokenizer_train(options: argparse.Namespace) -> int:
    from tuner.progress import shown
    from tuner.tokenizers import describe, train

    results, progress = _consoles(options)
    with shown(progress) as on_progress:
        tokenizer, files = train(
            options.files,
            options.output,
            vocab_size=options.vocab_size,
            pattern=options.pattern,
            special_tokens=options.special,
            separator=options.separator,
            file_format=options.format,
            processes=options.processes,
            on_progress=on_progress,
        )
    facts = describe(results, tokenizer)
    for path in files:
        results.print(f"wrote {path}", highlight=False, soft_wrap=True)
    _print_json(options, {**facts, "files": [str(path) for path in files]})
    return 0


def _tokenizer_encode(options: argparse.Namespace) -> int:
    from tuner.tokenizers import encode, read_tokenizer

    tokenizer = read_tokenizer(options.tokenizer, options.special, options.pattern)
    stream = sys.stderr if options.json else sys.stdout
    _print_json(options, encode(tokenizer, options.file, options.output, stream))
    return 0


def _tokenizer_decode(options: argparse.Namespace) -> int:
    from tuner.tokenizers import decode, read_tokenizer

    tokenizer = read_tokenizer(options.tokenizer, options.special, options.pattern)
    text = decode(tokenizer, options.file)
    if not options.json:
        sys.stdout.write(text)
    _print_json(options, {"text": text})
    return 0


def _tokenizer_show(options: argparse.Namespace) -> int:
    from tuner.tokenizers import describe, print_tokens, read_text, read_tokenizer

    tokenizer = read_tokenizer(options.tokenizer, options.special, options.pattern)
    results, _ = _consoles(options)
    facts = describe(results, tokenizer)
    text = options.text
    if text is None and not (options.file == "-" and sys.stdin.isatty()):
        text = read_text(options.file)
    if text:
        facts |= print_tokens(results, tokenizer, text)
    _print_json(options, facts)
    return 0


def _doctor(options: argparse.Namespace) -> int:
    from tuner.doctor import examine

    results, _ = _consoles(options)
    findings = examine(results, _home(options))
    _print_json(options, {name: finding for name, (_, finding) in findings.items()})
    return 0 if all(ok for ok, _ in findings.values()) else 1
