"""Rules between hyperparameters that some draws of a space break."""

from __future__ import annotations

from pydantic import ValidationError

from model.spec.hyperparameters import find_symbol
from tuner.errors import TunerError
from tuner.space.combinations import corners
from tuner.space.cool_down import check_branches
from tuner.space.data_facts import DataFacts
from tuner.space.parameter import symbol
from tuner.space.space import SearchSpace
from tuner.texts.formatting import broken_rule, shown
from tuner.texts.formatting import listed as in_words

# A message gives the values of these parameters.
_SHOWN = ("batch_size", "context_length", "total_steps", "epochs")


def context_lengths(space: SearchSpace, vocab_size: int) -> set[int]:
    """Return the context lengths of all models of a space, with a number of token ids."""
    return {shape.context_length for shape in space.shapes(vocab_size)}


def check_contexts(space: SearchSpace, facts: DataFacts) -> None:
    """Raise TunerError if a part of the data is shorter than a context of the space."""
    try:
        for length in sorted(context_lengths(space, facts.vocab_size)):
            facts.sequences(length)
    except ValueError as error:
        raise TunerError(f"the space {space.name} does not fit its data: {error}") from error


def conflicts(space: SearchSpace, train_size: int) -> list[tuple[str, str]]:
    """Return the rules between hyperparameters that break at corners of the space.

    Args:
        space: search space whose parameters are valid one by one.
        train_size: tokens of the training text, or number of its pairs or examples; an upper limit
            is enough.

    Returns:
        Pairs of the name of a parameter and a message; each rule once.
    """
    try:
        draws = corners(space.parameter_set)
    except ValueError as error:
        return [("", str(error))]
    broken: dict[str, tuple[str, str]] = {}
    for drawn in draws:
        try:
            check_branches(space, space.derive(drawn, train_size), drawn, train_size)
        except ValueError as error:
            rule, comma, got = _message(error).partition(", got ")
            settings = [f"{symbol(n)} = {shown(drawn[n])}" for n in _SHOWN if n in drawn]
            where = f" with {in_words(settings, 'and')}" if settings else ""
            message = f"{rule}{comma}{got}{where}; change one of their ranges"
            broken.setdefault(rule, (_culprit(space, rule), message))
    return list(broken.values())


def _message(error: ValueError) -> str:
    """Return an error as one sentence that begins with a symbol."""
    if not isinstance(error, ValidationError):
        return str(error)
    item = error.errors()[0]
    return broken_rule(symbol(str(item["loc"][0])) if item["loc"] else "", item)


def _culprit(space: SearchSpace, rule: str) -> str:
    """Return the first parameter named in a rule that the space sets; empty if none."""
    names = [entry.name for word in rule.split() if (entry := find_symbol(word))]
    in_space = {p.name for p in space.hyperparameters.values()}
    return next((name for name in names if name in in_space), "")
