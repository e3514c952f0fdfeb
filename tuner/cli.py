"""The command line: parse it, run the command, turn errors into exit statuses.

Exit statuses: 0 done; 1 the result is bad; 2 bad input or usage; 3 another driver has taken over
the search; 130, 143 and 129 ended by Ctrl-C, SIGTERM and SIGHUP; 141 the reader of the output left.
"""

from __future__ import annotations

import argparse
import errno
import sys
from collections.abc import Mapping, Sequence
from importlib import import_module

from model.errors import CorpusError, ModelError
from tuner.arguments.parser import parse
from tuner.arguments.topics import next_step
from tuner.commands.output import (
    PIPE_CLOSED,
    check_output,
    discard_output,
    home_option,
    kept_umask,
    output_problem,
    prepare_streams,
    say,
)
from tuner.driver.interrupt import raised_interrupts
from tuner.errors import Interrupted, Replaced, SpaceError, TunerError, signal_text
from tuner.texts.secrets import mask_output

# Errors of files that are no bugs: another user's home, a disk that is full or only to be read.
_OF_THE_MACHINE = {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
# Function of each command, in a module of `tuner.commands` that is imported when it runs.
_COMMANDS: Mapping[str, str] = {
    "search": "search.run_search",
    "submit": "jobs.submit.run_submit",
    "status": "jobs.status.run_status",
    "attach": "jobs.attach.run_attach",
    "logs": "jobs.attach.run_logs",
    "stop": "jobs.stop.run_stop",
    "edit": "jobs.edit.run_edit",
    "serve": "serve.run_serve",
    "login": "jobs.remote.run_login",
    "sync": "maintenance.sync.run_sync",
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
    "delete": "maintenance.delete.run_delete",
    "clean": "maintenance.clean.run_clean",
    "backup": "maintenance.backup.run_backup",
    "restore": "maintenance.backup.run_restore",
    "generate": "generate.run_generate",
    "export": "export.run_export",
    "transfer": "transfer.proxy.run_transfer",
    "scaling": "transfer.scaling.run_scaling",
    "suggest": "transfer.suggest.run_suggest",
    "doctor": "doctor.run_doctor",
    "completion": "maintenance.completion.run_completion",
    "help": "maintenance.help.run_help",
}


@kept_umask()
def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status."""
    mask_output()
    prepare_streams()
    options = parse(arguments)
    module, function = _COMMANDS[options.command].rsplit(".", 1)
    try:
        with raised_interrupts():
            check_output()
            run = getattr(import_module(f"tuner.commands.{module}"), function)
            status: int = run(options)
            sys.stdout.flush()
    except Replaced as error:
        say(f"tuner {options.command}: {error}")
        return error.exit_status
    except KeyboardInterrupt as error:
        interrupted = error if isinstance(error, Interrupted) else Interrupted()
        say(_interrupted_text(interrupted, options))
        return interrupted.exit_status
    except BrokenPipeError:
        discard_output()
        return PIPE_CLOSED
    except OSError as error:
        reason = _reason(error)
        if reason is None or (options.debug and error.filename):
            raise
        say(f"tuner {options.command}: {reason}")
        return TunerError.exit_status
    except (TunerError, ModelError) as error:
        if options.debug:
            raise
        if isinstance(error, CorpusError) and getattr(options, "space", None):
            from tuner.space_file.load import located  # loads pydantic

            error = located(error, options.space, options.overrides)
        # the lines of a SpaceError start with file:line:column, which editors can follow
        say(str(error) if isinstance(error, SpaceError) else f"tuner {options.command}: {error}")
        return error.exit_status if isinstance(error, TunerError) else 2
    _say_next(options, status)
    return status


def _say_next(options: argparse.Namespace, status: int) -> None:
    """Say what is usually done next, to people and not to programs."""
    step = next_step(options) if status == 0 and sys.stderr.isatty() else None
    if step:
        say(f"Next: {step}")


def _reason(error: OSError) -> str | None:
    """Return what the user can mend of a file or of standard output; None for a bug."""
    if error.filename and error.errno in _OF_THE_MACHINE:
        return f"{error.filename}: {error.strerror}"
    problem = output_problem()
    if problem is None:
        return None
    return f"cannot write to standard output: {problem.strerror}"


def _interrupted_text(error: Interrupted, options: argparse.Namespace) -> str:
    """Return what a signal has ended, and how to go on."""
    event = signal_text(error.signal)
    if error.search is not None:
        home = home_option(options)
        return f"{event}; resume the search by 'tuner search --resume {error.search}{home}'"
    if options.command == "search":
        return f"{event} before the search began; nothing was recorded"
    return event
