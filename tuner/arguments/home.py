"""Options of the commands for what is in a home: its pages, its files."""

from __future__ import annotations

import argparse

from tuner.arguments.option_types import duration, search_name, whole


def add_ui(ui: argparse.ArgumentParser) -> None:
    """Add the options of `tuner ui`."""
    add_address(ui, None, "the first free one from 5000")
    add_search_name(ui, "open this search (default: the newest)")
    ui.add_argument(
        "--no-browser",
        dest="browser",
        action="store_false",
        help="print the link, do not open a browser",
    )


def add_address(server: argparse.ArgumentParser, port: int | None, default: str) -> None:
    """Add host and port of a server; `default` says what the port is by default."""
    server.add_argument(
        "--host", default="127.0.0.1", help="address to listen on (default: %(default)s)"
    )
    server.add_argument(
        "--port", type=whole(1, 65535), default=port, help=f"port (default: {default})"
    )


def add_search_name(command: argparse.ArgumentParser, text: str) -> None:
    """Add `--search`, the name of a search."""
    command.add_argument("--search", type=search_name, metavar="NAME", help=text)


def add_delete(delete: argparse.ArgumentParser) -> None:
    """Add the options of `tuner delete`."""
    delete.add_argument("search", type=search_name, metavar="SEARCH", help="name of the search")
    _add_yes(delete)
    delete.add_argument(
        "--models", action="store_true",
        help="delete the versions of registered models that come from the search, too",
    )  # fmt: skip
    delete.add_argument(
        "--force", action="store_true",
        help="delete the search although its space's champion comes from it",
    )  # fmt: skip


def add_clean(clean: argparse.ArgumentParser) -> None:
    """Add the options of `tuner clean`."""
    _add_yes(clean)
    clean.add_argument(
        "--older-than", type=duration, metavar="AGE",
        help="also what can be made again of searches without an event for so long, as 30d: "
        "prepared data, states to go on from, weights of all trials but the best",
    )  # fmt: skip
    clean.add_argument("--dry-run", action="store_true", help="delete nothing, say what would be")


def add_doctor(doctor: argparse.ArgumentParser) -> None:
    """Add the options of `tuner doctor`."""
    doctor.add_argument(
        "--cluster", action="store_true",
        help="look at each node of a Ray cluster instead: versions, the home, clock",
    )  # fmt: skip
    doctor.add_argument(
        "--address", metavar="ADDRESS",
        help="with --cluster: HOST:PORT of its head (default: RAY_ADDRESS, or auto)",
    )  # fmt: skip
    doctor.add_argument(
        "--storage", metavar="URL",
        help="with --cluster: engine.storage, which the nodes must reach instead of the home",
    )  # fmt: skip


def add_backup(backup: argparse.ArgumentParser) -> None:
    """Add the options of `tuner backup`."""
    backup.add_argument(
        "file", metavar="FILE", help="archive to write: tar, compressed if it ends in .gz or .tgz"
    )
    backup.add_argument("--force", action="store_true", help="replace the file if it exists")


def add_restore(restore: argparse.ArgumentParser) -> None:
    """Add the options of `tuner restore`."""
    restore.add_argument("file", metavar="FILE", help="archive that 'tuner backup' wrote")


def _add_yes(command: argparse.ArgumentParser) -> None:
    command.add_argument("-y", "--yes", action="store_true", help="do not ask")
