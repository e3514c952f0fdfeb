"""`tuner transfer`: check and verify a proxy, and train its target with the winner."""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path
from typing import Any

from tuner.commands.output import consoles, home_of, print_json, recorded_home
from tuner.commands.transfer.check import check_activations
from tuner.commands.transfer.verify import verify
from tuner.errors import TunerError
from tuner.home.home import Home
from tuner.report.write import check_output
from tuner.results.result import SearchResult
from tuner.tracking.metrics import with_counts
from tuner.trained.load_search import load_search

_PICTURES = {"check": "coordinates", "verify": "rates"}


def run_transfer(options: argparse.Namespace) -> int:
    """Measure the proxy of a search, or train its target; exit status 1 if it is not to trust."""
    actions = [name for name in ("check", "verify", "train") if getattr(options, name)]
    if not actions:
        raise TunerError(
            "say what to do: --check compares the activations of several sizes, --verify their "
            "best learning rates, --train trains the target with the winner"
        )
    if options.rate_factor != 1 and not options.train:
        raise TunerError("--rate-factor is for --train, which is missing")
    if options.output and sum(name in _PICTURES for name in actions) != 1:
        raise TunerError("-o names one picture: give it with --check or --verify alone")
    home = recorded_home(options)
    result = load_search(options.search, home=home)
    if result.space.is_lora:
        raise TunerError(
            f"the trials of {result.name} adapt frozen weights with LoRA, for which there are no "
            f"rules by which a small model stands for a large one; search without lora to transfer"
        )
    proxy = result.space.proxy
    if proxy is None or result.best.spec.architecture.target is None:
        raise TunerError(
            f"the trials of {result.name} are no proxies; give its space a section proxy:, for "
            f"instance {{width: 1/8}}"
        )
    value: dict[str, Any] = {"search": result.name}
    is_trusted = True
    for name, measure in (("check", check_activations), ("verify", verify)):
        if name in actions:
            output = _picture(options, result, name)
            found = measure(options, result, proxy, home, output)
            value |= found if len(actions) == 1 else {name: found}
            is_trusted &= found.get("kept", True) and found.get("verdict") != "not transferable"
    if options.train and is_trusted:
        value |= _train(options, result, home_of(options))
    elif options.train:
        results, _ = consoles(options)
        results.print("The target was not trained; --train alone does it.")
    print_json(options, value)
    return 0 if is_trusted else 1


def _picture(options: argparse.Namespace, result: SearchResult, name: str) -> Path:
    output = Path(options.output or f"{result.name}-{_PICTURES[name]}.html")
    check_output(output)
    return output


def _train(options: argparse.Namespace, result: SearchResult, home: Home) -> dict[str, Any]:
    """Train the target as a search of one trial; begun before, it goes on."""
    from tuner.driver.search import search
    from tuner.terminal.live import view_on
    from tuner.terminal.summary import print_summary
    from tuner.trained.moved_data import present_space
    from tuner.transfer.target import read_factor, target_space

    results, progress = consoles(options)
    factor, verified = options.rate_factor, read_factor(home.search(result.name))
    if verified not in (None, 1) and factor == 1:
        progress.print(
            f"--verify found that the best learning rate moves: --rate-factor {verified:.3g} would "
            f"correct it; the target is trained with the winner's as it is"
        )
    name = f"{result.name}-target" + (f"-x{factor:g}" if factor != 1 else "")
    space = target_space(present_space(result.space, home), result.best.draw, factor)
    trained = search(
        space,
        name=name,
        home=home,
        view=view_on(progress),
        debug=options.debug,
        on_result=partial(print_summary, results, home=options.home),
    )
    return {
        "target": trained.name,
        "best_run": trained.run_ids.get(0),
        "hyperparameters": trained.best.spec.hyperparameters.model_dump(),
        "architecture": trained.best.spec.architecture.model_dump(),
        **with_counts(trained.summary()),
        "halted": trained.halted,
    }
