"""The command line: parses it, runs the command, and turns errors into exit statuses.

Exit status 0: done; 1: the result is bad; 2: bad input or usage; 130: interrupted.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from importlib import import_module

from model.errors import ModelError
from tuner.arguments import parse
from tuner.commands.output import INTERRUPTED, say
from tuner.errors import SpaceError, TunerError

# command → module of `tuner.commands` and function
_COMMANDS: Mapping[str, str] = {
    "search": "search.search",
    "sync": "sync.sync",
    "replay": "search.replay",
    "ui": "ui.ui",
    "validate": "validate.validate",
    "symbols": "show.symbols",
    "list": "show.searches",
    "show": "show.show",
    "compare": "compare.compare",
    "report": "report.report",
    "data prepare": "data.prepare",
    "data info": "data.info",
    "data sample": "data.sample",
    "tokenizer train": "tokenizer.train",
    "tokenizer encode": "tokenizer.encode",
    "tokenizer decode": "tokenizer.decode",
    "tokenizer show": "tokenizer.show",
    "generate": "generate.generate",
    "export": "export.export",
    "doctor": "doctor.doctor",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; its exit status."""
    options = parse(arguments)
    module, _, function = _COMMANDS[options.command].partition(".")
    try:
        run = getattr(import_module(f"tuner.commands.{module}"), function)
        status: int = run(options)
    except KeyboardInterrupt:
        say("interrupted; what was recorded is kept ('tuner list')")
        return INTERRUPTED
    except BrokenPipeError:  # `tuner list | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (TunerError, ModelError) as error:
        if options.debug:
            raise
        # mistakes of a file come as lines file:line:column, which editors can follow
        say(str(error) if isinstance(error, SpaceError) else f"tuner {options.command}: {error}")
        return error.exit_status if isinstance(error, TunerError) else 2
    return status
