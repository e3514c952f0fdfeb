"""The process of the command line: `tuner`, or `python -m tuner`."""

import sys
from typing import NoReturn

from tuner.leaving import end, prepare


def run_process() -> NoReturn:
    """Run one command, and end the process with its exit status."""
    prepare()
    from tuner import hidden_model

    if problem := hidden_model():
        sys.stderr.write(f"tuner: {problem}\n")
        sys.exit(2)
    from tuner.cli import main

    end(main())


if __name__ == "__main__":
    run_process()
