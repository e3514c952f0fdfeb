"""The command line: parse it, run the command, turn errors into exit statuses.

Exit statuses: 0 done; 1 the result is bad; 2 bad input or usage; 130 interrupted.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from importlib import import_module

from model.errors import CorpusError, ModelError
from tuner.arguments import parse
from tuner.commands.output import INTERRUPTED, say
from tuner.errors import SpaceError, TunerError

# Function of each command, in a module of `tuner.commands` that is imported when it runs.
_COMMANDS: Mapping[str, str] = {
    "search": "search.run_search",
    "sync": "sync.run_sync",
    "replay": "search.run_replay",
    "ui": "ui.run_ui",
    "init": "init.run_init",
    "validate": "validate.run_validate",
    "symbols": "symbols.run_symbols",
    "list": "show.run_list",
    "show": "show.run_show",
    "compare": "compare.run_compare",
    "report": "report.run_report",
    "data prepare": "data.run_prepare",
    "data info": "data.run_info",
    "data sample": "data.run_sample",
    "tokenizer train": "tokenizer.run_train",
    "tokenizer encode": "tokenizer.run_encode",
    "tokenizer decode": "tokenizer.run_decode",
    "tokenizer show": "tokenizer.run_show",
    "generate": "generate.run_generate",
    "export": "export.run_export",
    "doctor": "doctor.run_doctor",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status."""
    options = parse(arguments)
    module, function = _COMMANDS[options.command].split(".")
    try:
        run = getattr(import_module(f"tuner.commands.{module}"), function)
        status: int = run(options)
    except KeyboardInterrupt:
        say("interrupted; the recorded trials are kept ('tuner list')")
        return INTERRUPTED
    except BrokenPipeError:  # `tuner list | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (TunerError, ModelError) as error:
        if options.debug:
            raise
        if isinstance(error, CorpusError) and getattr(options, "space", None):
            from tuner.space_file.load import located  # loads pydantic

            error = located(error, options.space, options.overrides)
        # the lines of a SpaceError start with file:line:column, which editors can follow
        say(str(error) if isinstance(error, SpaceError) else f"tuner {options.command}: {error}")
        return error.exit_status if isinstance(error, TunerError) else 2
    return status
