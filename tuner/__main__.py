"""Run the command line by `python -m tuner`."""

import sys

from tuner import hidden_model

if problem := hidden_model():
    sys.stderr.write(f"tuner: {problem}\n")
    sys.exit(2)

from tuner.cli import main

sys.exit(main())
