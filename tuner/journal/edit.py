"""Which settings of a search may change when it is resumed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import yaml
from pydantic import ValidationError

from tuner.errors import TunerError
from tuner.formatting import broken_rule, listed
from tuner.space.parameter import Parameter
from tuner.space.space import SearchSpace
from tuner.space_file.overrides import Override

# Settings that say how much is searched and where, and nothing of what a trial is.
_FREE = {
    "search": ("trials", "keep", "max_tokens", "max_seconds", "patience"),
    "confirm": ("top", "seeds"),
    "engine": ("workers", "slots", "timeout_seconds"),
}


_ALLOWED = (
    "more search.trials, search.keep, the limits search.max_tokens, max_seconds and patience, "
    "confirm, engine.workers and slots, and the ends and values of ranges and choices"
)


def edited(space: SearchSpace, overrides: Sequence[Override], name: str) -> SearchSpace:
    """A recorded space with some of its free settings changed.

    Raises:
        TunerError: if another setting is to be changed, or a value is none.
    """
    for override in overrides:
        part, key = (*override.path, "")[:2]
        if key not in _FREE.get(part, ()) or len(override.path) > 2:
            raise TunerError(
                f"{override.option}: cannot be changed in {name}; allowed are {_ALLOWED} (change "
                f"those in the file and give it with --space)"
            )
        section = getattr(space, part)
        try:
            value = yaml.safe_load(override.text)
            changed = type(section).model_validate({**section.model_dump(), key: value})
        except ValidationError as error:
            message = broken_rule(f"{part}.{key}", error.errors()[0])
            raise TunerError(f"{override.option}: {message}") from error
        except yaml.YAMLError as error:
            raise TunerError(f"{override.option}: {override.text!r} is no value") from error
        space = space.model_copy(update={part: changed})
    return space


def check_edit(old: SearchSpace, new: SearchSpace, name: str) -> None:
    """Whether a search may go on with another space.

    Raises:
        TunerError: if it may not; names what cannot be changed.
    """
    refused = list(_refused(old, new))
    if refused:
        raise TunerError(
            f"the search {name} cannot go on with {listed(refused, 'and')}; allowed changes are "
            f"{_ALLOWED}; for others start a new search"
        )


def _refused(old: SearchSpace, new: SearchSpace) -> Iterator[str]:
    for part in SearchSpace.model_fields:
        before, after = getattr(old, part), getattr(new, part)
        if part in ("model", "hyperparameters"):
            yield from _refused_parameters(part, before, after)
        elif part in _FREE:
            for key in type(before).model_fields:
                if key not in _FREE[part] and getattr(before, key) != getattr(after, key):
                    yield f"another {part}.{key}"
        elif before != after:
            yield f"another {part}"
    if new.search.trials < old.search.trials:
        yield f"fewer search.trials ({new.search.trials} instead of {old.search.trials})"
    population = old.search.scheduler in ("pbt", "pb2")
    if population and new.search.trials != old.search.trials:
        yield "another size of the population"


def _refused_parameters(
    part: str, before: Mapping[str, Parameter], after: Mapping[str, Parameter]
) -> Iterator[str]:
    if list(before) != list(after):
        yield f"other entries of {part} or another order of them"
        return
    for key, old in before.items():
        new = after[key]
        same = old.model_copy(update={"distribution": new.distribution})
        if same != new or ((old.is_constant or new.is_constant) and old != new):
            yield f"another {part}.{key}"
        elif old.distribution.kind != new.distribution.kind:
            yield f"another kind of range for {part}.{key}"
