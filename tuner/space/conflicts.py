"""Combinations of values that no trial can have."""

from __future__ import annotations

from pydantic import ValidationError

from model.spec.hyperparameters import find_symbol
from tuner.formatting import broken_rule, shown
from tuner.formatting import listed as in_words
from tuner.space.combinations import corners
from tuner.space.parameter import symbol
from tuner.space.space import SearchSpace

# Where a broken rule was found is told by these.
_TELLING = ("batch_size", "context_length", "total_steps", "epochs")


def conflicts(space: SearchSpace, train_size: int) -> list[tuple[str, str]]:
    """The rules between rows that some draw breaks, at the corners of the space.

    Args:
        space: whose parameters are right one by one.
        train_size: tokens of the training text, or its pairs; or the most that it can have.

    Returns:
        Name of a parameter, and a sentence about its conflict; each rule once.
    """
    try:
        draws = corners(space.parameter_set)
    except ValueError as error:
        return [("", str(error))]
    found: dict[str, tuple[str, str]] = {}
    for drawn in draws:
        try:
            space.derive(drawn, train_size)
        except ValueError as error:
            rule, comma, got = _sentence(error).partition(", got ")
            told = [f"{symbol(n)} = {shown(drawn[n])}" for n in _TELLING if n in drawn]
            where = f" with {in_words(told, 'and')}" if told else ""
            message = f"{rule}{comma}{got}{where}; change one of their ranges"
            found.setdefault(rule, (_culprit(space, rule), message))
    return list(found.values())


def _sentence(error: ValueError) -> str:
    """What is wrong, in one sentence that begins with a symbol."""
    if not isinstance(error, ValidationError):
        return str(error)
    item = error.errors()[0]
    return broken_rule(symbol(str(item["loc"][0])) if item["loc"] else "", item)


def _culprit(space: SearchSpace, rule: str) -> str:
    """The first parameter named in a rule that the space sets."""
    rows = [row for word in rule.split() if (row := find_symbol(word))]
    names = [row.name for row in rows]
    given = {p.name for p in space.hyperparameters.values()}
    return next((name for name in names if name in given), "")
