"""Options of the commands for trained trials and finished searches."""

from __future__ import annotations

import argparse

from tuner.arguments.home import add_search_name
from tuner.arguments.option_types import amount, duration, real, run_name, search_name, whole
from tuner.commands.output import in_utf8

EXPORTS = ("hf", "gguf", "torch", "peft")
_NEWEST = "name of the search (default: the newest)"
_RUN = "run id, or SEARCH/TRIAL such as lm-1/13 (default: the best trial)"


def _add_trial(command: argparse.ArgumentParser) -> None:
    """Add the two ways to name one trial."""
    command.add_argument("run", nargs="?", type=run_name, metavar="RUN", help=_RUN)
    add_search_name(command, "take the best trial of this search")


def add_replay(replay: argparse.ArgumentParser) -> None:
    """Add the options of `tuner replay`."""
    _add_trial(replay)
    replay.add_argument(
        "--prepared",
        action="store_true",
        help="train on the prepared copy of the data, though the data has changed since or is gone",
    )


def add_show(show: argparse.ArgumentParser) -> None:
    """Add the options of `tuner show`."""
    show.add_argument(
        "run", nargs="?", type=run_name, metavar="RUN",
        help="show this trial in full: run id, or SEARCH/TRIAL such as lm-1/13",
    )  # fmt: skip
    add_search_name(show, _NEWEST)
    show.add_argument(
        "--by",
        type=in_utf8,
        metavar="PARAMETER",
        help="group the trials by the value of a parameter, such as optimizer",
    )
    show.add_argument("--all", action="store_true", help="with RUN: show all its parameters")
    show.add_argument(
        "--csv", action="store_true",
        help="print the trials, the reports of RUN, or the groups of --by as CSV",
    )  # fmt: skip
    taken = show.add_mutually_exclusive_group()
    for name, text in (
        ("yaml", "print the configuration of RUN, or of the best trial, as a space for --space"),
        ("transformers", "print it as TrainingArguments of Hugging Face transformers"),
        ("nanogpt", "print it as a configuration file for nanoGPT's train.py"),
    ):
        taken.add_argument(
            f"--{name}", dest="take_away", action="store_const", const=name, help=text
        )


def add_generate(generate: argparse.ArgumentParser) -> None:
    """Add the options of `tuner generate`."""
    _add_trial(generate)
    generate.add_argument(
        "--runs",
        nargs="+",
        type=run_name,
        metavar="RUN",
        help="several trials, shown side by side",
    )
    prompt = generate.add_mutually_exclusive_group()
    prompt.add_argument(
        "--prompt", metavar="TEXT",
        help="text to continue, to translate, or for a model tuned on examples to answer; - is "
        "standard input (default: start a document)",
    )  # fmt: skip
    prompt.add_argument("--file", metavar="FILE", help="read the prompt from a file")
    generate.add_argument(
        "--raw", action="store_true",
        help="continue the prompt as it is, without the chat template of a model tuned on examples",
    )  # fmt: skip
    system = generate.add_mutually_exclusive_group()
    system.add_argument(
        "--system", metavar="TEXT", help="message of the system, before a prompt in a chat template"
    )
    system.add_argument("--system-file", metavar="FILE", help="read it from a file")
    for name, parse_value, metavar, text in (
        ("temperature", real(0, 1000), "T", "divide the logits by T; 0 takes the most "
         "probable token (default: 0.8)"),
        ("top-k", whole(0, 2**31), "K", "draw from the K most probable tokens (default: 0, all)"),
        ("top-p", real(1e-9, 1), "P", "draw from the fewest tokens whose probabilities sum to P "
         "(default: 0.95)"),
        ("repetition-penalty", real(1e-3, 1000), "R", "above 1, make tokens less probable that "
         "occurred before (default: 1)"),
        ("max-tokens", whole(1, 10**6), "N", "largest number of tokens to write (default: 200)"),
        ("seed", whole(0, 2**63 - 1), "N", "seed of the random numbers; an equal seed writes an "
         "equal text (default: 0)"),
    ):  # fmt: skip
        generate.add_argument(f"--{name}", type=parse_value, metavar=metavar, help=text)
    generate.add_argument(
        "--samples", type=whole(1, 64), default=1, metavar="N",
        help="number of texts of each trial (default: %(default)s)",
    )  # fmt: skip


def add_export(export: argparse.ArgumentParser) -> None:
    """Add the options of `tuner export`."""
    _add_trial(export)
    export.add_argument(
        "--format", choices=EXPORTS, default="hf",
        help="hf: a folder for Hugging Face transformers; gguf: for llama.cpp; torch: a plain "
        "state dict; peft: the matrices of a LoRA trial alone, which the others have in the "
        "weights (default: %(default)s)",
    )  # fmt: skip
    export.add_argument("-o", "--output", required=True, metavar="DIR", help="folder; new or empty")
    export.add_argument(
        "--force", action="store_true", help="replace an earlier export in the folder"
    )


def add_transfer(transfer: argparse.ArgumentParser) -> None:
    """Add the options of `tuner transfer`."""
    transfer.add_argument(
        "search", nargs="?", type=search_name, metavar="SEARCH",
        help="name of a search with proxy: (default: the newest)",
    )  # fmt: skip
    for name, text in (
        ("check", "train several widths and depths for 50 updates and compare their activations"),
        ("verify", "train three sizes at five learning rates, and say whether the best one stays"),
        ("train", "train the target with the winner, as a search of one trial, SEARCH-target"),
    ):
        transfer.add_argument(f"--{name}", action="store_true", help=text)
    transfer.add_argument(
        "--rate-factor", type=real(1e-6, 1e6), default=1.0, metavar="F",
        help="multiply the learning rates of --train by F, as --verify may say",
    )  # fmt: skip
    transfer.add_argument(
        "--seeds", type=whole(2, 100), metavar="N",
        help="seeds of each model of --check (default: 5) or --verify (default: 2)",
    )  # fmt: skip
    transfer.add_argument(
        "--device", default="cpu", choices=("cpu", "cuda", "mps"),
        help="device of --check (default: %(default)s)",
    )  # fmt: skip
    transfer.add_argument(
        "-o", "--output", metavar="FILE.html",
        help="page of the plots (default: SEARCH-coordinates.html, SEARCH-rates.html)",
    )  # fmt: skip


def add_scaling(scaling: argparse.ArgumentParser) -> None:
    """Add the options of `tuner scaling`."""
    scaling.add_argument(
        "searches", nargs="+", type=search_name, metavar="SEARCH",
        help="names of finished searches, with three or more sizes of model in all",
    )  # fmt: skip
    target = scaling.add_mutually_exclusive_group()
    target.add_argument(
        "--parameters", type=amount, metavar="N",
        help="predict a model of N weights, such as 400M or 1e9",
    )  # fmt: skip
    target.add_argument(
        "--flops", type=amount, metavar="C",
        help="predict a training of C operations, such as 2e15 or 300T",
    )  # fmt: skip
    scaling.add_argument(
        "--tokens", type=amount, metavar="D",
        help="training tokens of the target, where those of the trials do not follow the size",
    )  # fmt: skip
    scaling.add_argument(
        "--of", choices=("α_max", "B"), metavar="{α_max,B}",
        help="fit the optimum of this one only, beside the loss (default: all that were searched)",
    )  # fmt: skip
    scaling.add_argument(
        "--compare", type=search_name, metavar="SEARCH",
        help="compare a search of the target with the prediction that was written before it",
    )  # fmt: skip
    scaling.add_argument(
        "-o", "--output", metavar="FILE.html", help="draw basins and laws on a page"
    )


def add_report(report: argparse.ArgumentParser) -> None:
    """Add the options of `tuner report`."""
    add_search_name(report, _NEWEST)
    report.add_argument(
        "-o",
        "--output",
        metavar="FILE",
        default="report.html",
        help="path of the page (default: %(default)s)",
    )
    report.add_argument(
        "--prompt", metavar="TEXT", default="",
        help="start of the texts of the best trials (default: start a document)",
    )  # fmt: skip
    report.add_argument("--open", action="store_true", help="open the page in the browser")
    report.add_argument(
        "--watch", nargs="?", type=duration, const=30.0, metavar="TIME",
        help="write it again every TIME while the search runs (default: 30s); the page reloads",
    )  # fmt: skip
