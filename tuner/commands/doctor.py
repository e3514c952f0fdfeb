"""`tuner doctor`: check that everything works that a search needs, and what protects it."""

from __future__ import annotations

import argparse
from os import environ

from rich.text import Text

from tuner.commands.output import consoles, home_of, print_json, say
from tuner.errors import RecordError, TunerError
from tuner.home.home import Home
from tuner.housekeeping.installation import check_installation
from tuner.housekeeping.weaknesses import find_weaknesses
from tuner.terminal.console import PlainConsole
from tuner.texts.formatting import counted

_MOST_SKEW_SECONDS = 5.0
_PASSED, _WARNED, _FAILED = ("✓ ", "green"), ("! ", "yellow"), ("✗ ", "bold red")


def run_doctor(options: argparse.Namespace) -> int:
    """Check the installation; what weakens the protection of the home is a warning."""
    if not options.cluster and (options.address or options.storage):
        options.refuse("--address and --storage need --cluster")
    if options.cluster:
        return _check_cluster(options)
    results, _ = consoles(options)
    try:
        home = Home.recorded(options.home, say)
    except RecordError:  # no search yet, and checking makes no home
        home = Home.of(options.home)
    found = []
    for check in check_installation(home):
        found.append(check)
        _print(results, _PASSED if check.passed else _FAILED, check.name, check.text)
    warnings = find_weaknesses(home)
    for text in warnings:
        _print(results, _WARNED, "trust", text)
    print_json(options, {**{check.name: check.text for check in found}, "trust": warnings})
    return 0 if all(check.passed for check in found) else 1


def _check_cluster(options: argparse.Namespace) -> int:
    """Look at each node of a Ray cluster: if it can train the trials of a search in this home."""
    from tuner.workers.nodes import look_at_nodes
    from tuner.workers.ray_session import cluster_address, ray_session

    console, _ = consoles(options)
    address = cluster_address(options.address or ("auto" if "RAY_ADDRESS" not in environ else None))
    if address is None:
        raise TunerError("RAY_ADDRESS is local; name the cluster with --address HOST:PORT or auto")
    folder = home_of(options).search("")
    folder.mkdir(parents=True, exist_ok=True)
    with ray_session(address):
        states = look_at_nodes(folder, storage=options.storage, has_clocks=True)
    for state in states:
        node = state.node
        text = f"{counted(node.cores, 'CPU')}, {counted(node.gpus, 'GPU')}; "
        if state.problem:
            _print(console, _FAILED, node.name, text + state.problem)
            continue
        is_late = abs(state.seconds_ahead) > _MOST_SKEW_SECONDS
        text += f"versions and folder as here; its clock differs by {state.seconds_ahead:+.2f} s"
        if is_late:
            text += ": S3 and TLS refuse clocks that are far off; let NTP set it"
        _print(console, _WARNED if is_late else _PASSED, node.name, text)
    if not states:
        _print(console, _FAILED, "nodes", "no node of the cluster has a CPU or GPU for Ray")
    nodes = [
        {
            "name": state.node.name, "cpus": state.node.cores, "gpus": state.node.gpus,
            "problem": state.problem or None,
            "seconds_ahead": None if state.problem else state.seconds_ahead,
        }
        for state in states
    ]  # fmt: skip
    print_json(options, {"nodes": nodes})
    return 0 if states and not any(state.problem for state in states) else 1


def _print(console: PlainConsole, mark: tuple[str, str], name: str, text: str) -> None:
    console.print(Text.assemble(mark, (f"{name:<8} ", "bold"), text), soft_wrap=True)
