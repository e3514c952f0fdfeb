"""`tuner ui`: start MLflow's server and open it at the trials of a search."""

from __future__ import annotations

import argparse
import os
import sys

from tuner.commands.output import recorded_home, say
from tuner.publish.mlflow_pages import serve


def run_ui(options: argparse.Namespace) -> int:
    """Compare the runs in MLflow."""
    home = recorded_home(options)
    home.set_umask()  # of the server, too
    browser = options.browser and has_browser()
    return serve(home, options.host, options.port, say, search=options.search, browser=browser)


def has_browser() -> bool:
    """Return whether a graphical browser is likely available: a terminal of a local desktop."""
    has_screen = sys.platform in {"darwin", "win32"} or any(
        os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY")
    )
    return sys.stdout.isatty() and has_screen and not os.environ.get("SSH_CONNECTION")
