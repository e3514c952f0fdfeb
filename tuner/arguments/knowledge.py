"""Options of `tuner suggest`."""

from __future__ import annotations

import argparse

from tuner.arguments.option_types import amount


def add_suggest(suggest: argparse.ArgumentParser) -> None:
    """Add the options of `tuner suggest`."""
    target = suggest.add_mutually_exclusive_group(required=True)
    target.add_argument(
        "--space", metavar="FILE", default="",
        help="suggest for the trials of this space, within its ranges",
    )  # fmt: skip
    target.add_argument(
        "--parameters", type=amount, metavar="N",
        help="suggest for a model of N weights without embeddings, such as 400M; with --tokens",
    )  # fmt: skip
    target.add_argument(
        "--record", action="store_true", help="list earlier suggestions and what came out"
    )
    suggest.add_argument(
        "--tokens", type=amount, metavar="D", help="training tokens of the model, such as 8B"
    )
    suggest.add_argument(
        "--data", metavar="TEXT",
        help="text of the model: that of a search of the home, or code, prose or markup of the "
        "atlas (default: one that no source has); with --parameters",
    )  # fmt: skip
    suggest.add_argument(
        "--learn-from", nargs="+", metavar="SEARCH",
        help="searches to learn from, or atlas, or off for published laws alone (default: auto, "
        "all searches of the home and the atlas)",
    )  # fmt: skip
    suggest.add_argument(
        "-o", "--output", metavar="FILE.yaml", help="write the space with the suggestions as priors"
    )
