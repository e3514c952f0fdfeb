"""Rules of `proxy:`, beside the model, the hyperparameters and the budget."""

from __future__ import annotations

from collections.abc import Iterator

from model.spec.hyperparameters import SYMBOL_TABLE
from model.spec.symbol import FractionOf
from model.spec.trial import SCALED_VALUES
from tuner.space_file.checks.rule import CheckedSpace, Finding
from tuner.texts.formatting import listed, shown

_VOCABULARY = 65_536  # any: it does not change which sizes can be divided
# rows that count updates of the complete training
_STEPS = tuple(
    row.name
    for row in SYMBOL_TABLE.values()
    if isinstance(row.default, FractionOf) and row.default.name == "total_steps"
)


def start(checked: CheckedSpace) -> Iterator[Finding]:
    """A proxy starts from random weights."""
    if checked.space.proxy is not None and checked.space.init_from is not None:
        message = "a proxy starts from random weights; leave out init_from or proxy"
        yield Finding(("proxy",), message, at_key=True)


def lengths(checked: CheckedSpace) -> Iterator[Finding]:
    """The proxy's number of updates follows from the target's."""
    space, proxy = checked.space, checked.space.proxy
    if proxy is None:
        return
    if proxy.tokens != 1 and space.budget.tokens is None:
        message = "proxy.tokens is a share of budget.tokens; give the budget in tokens"
        yield Finding(("proxy", "tokens"), message)
    for p in space.hyperparameters.values():
        if p.name not in _STEPS or p.fraction_of or proxy.steps == 1:
            continue
        if any(p.distribution.ends()):  # 0 is 0 of the proxy, too
            message = "a number of updates of the target is none of its proxy, which trains fewer"
            fix = "or more; give a share, {fraction_of: T_total, …}"
            yield Finding(checked.place(p.name), f"{checked.spelled(p.name)}: {message} {fix}")


def batch_rule(checked: CheckedSpace) -> Iterator[Finding]:
    """A rule for the batch size holds for the optimizers of the space."""
    space = checked.space
    if space.proxy is None or space.proxy.batch_rule == "off":
        return
    if "muon" in (space.possible("optimizer") or []):
        message = "is derived for adamw, and the space has muon; leave out one of them"
        yield Finding(("proxy", "batch_rule"), f"proxy.batch_rule {message}")


def values(checked: CheckedSpace) -> Iterator[Finding]:
    """Each row has only values that the multipliers are known for."""
    if checked.space.proxy is None:
        return
    for p in checked.space.hyperparameters.values():
        allowed = SCALED_VALUES.get(p.name)
        possible = p.distribution.possible_values() or p.distribution.ends()
        wrong = [value for value in possible if allowed is not None and value not in allowed]
        if allowed is not None and wrong:
            message = f"{shown(wrong[0])} does not transfer from a proxy to its target"
            fix = f"with proxy: it must be {listed(allowed)}"
            yield Finding(checked.place(p.name), f"{checked.spelled(p.name)}: {message}; {fix}")


def shapes(checked: CheckedSpace) -> Iterator[Finding]:
    """Every target has a proxy."""
    space, proxy = checked.space, checked.space.proxy
    if proxy is None:
        return
    try:
        targets = space.targets(_VOCABULARY)
    except ValueError:
        return  # `check_space.shapes` finds the mistake of the target itself
    for target in targets:
        try:
            proxy.shrink(target)
        except ValueError as error:
            yield Finding(("proxy",), str(error))
            return


def budgets(checked: CheckedSpace) -> Iterator[Finding]:
    """A proxy has one budget."""
    if checked.space.budget.shorter and checked.space.proxy is not None:
        message = "a list of budgets has no rule for proxies, so leave out proxy, or give one"
        yield Finding(("budget", "tokens"), f"budget.tokens: {message} budget")
