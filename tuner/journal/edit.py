"""Settings of a search that may change when the search is resumed."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from tuner.errors import SpaceError, TunerError
from tuner.samplers.arms import arms_of
from tuner.schedulers.registry import SCHEDULERS
from tuner.space.parameter import Parameter, symbol
from tuner.space.space import SearchSpace
from tuner.space_file.checks.check_compare import obstacles
from tuner.space_file.overrides import Override, overrides_in
from tuner.space_file.text_edit import as_spelled
from tuner.space_file.yaml_file import YamlFile
from tuner.texts.formatting import broken_rule, listed

Section = TypeVar("Section", bound=BaseModel)

# Settings of the amount and place of the search; none of them changes a specification.
_FREE = {
    "search": ("trials", "keep", "max_tokens", "max_seconds", "patience", "stop_when_left_below"),
    "confirm": ("top", "seeds"),
    "engine": ("workers", "slots", "timeout_seconds", "storage"),
}


_ALLOWED = (
    "more search.trials, search.keep, the limits search.max_tokens, max_seconds, patience and "
    "stop_when_left_below, confirm, engine.workers, slots and storage, and the ends and values of "
    "ranges and choices"
)


def edited(space: SearchSpace, overrides: Sequence[Override], name: str) -> SearchSpace:
    """Return the space of a recorded search with some of its free settings changed.

    Args:
        space: space of the recorded search.
        overrides: changes of the command line.
        name: name of the search, for errors.

    Raises:
        TunerError: if a setting may not be changed, or a value is not valid.
    """
    for override in overrides:
        part, key = (*override.path, "")[:2]
        if key not in _FREE.get(part, ()) or len(override.path) > 2:
            raise TunerError(
                f"{override.option}: cannot be changed in {name}; allowed are {_ALLOWED} (change "
                f"those in the file and give it with --space)"
            )
        changed = edited_section(getattr(space, part), override, part)
        space = space.model_copy(update={part: changed})
    return space


def edited_section(section: Section, override: Override, part: str) -> Section:
    """Return a section of a space with a setting of the command line.

    Args:
        section: settings before.
        override: the setting.
        part: name of the section.

    Raises:
        TunerError: if the value is not valid.
    """
    key = override.path[1]
    try:
        value = yaml.safe_load(override.text)
        return type(section).model_validate({**section.model_dump(), key: value})
    except ValidationError as error:
        message = broken_rule(f"{part}.{key}", error.errors()[0])
        raise TunerError(f"{override.option}: {message}") from error
    except yaml.YAMLError as error:
        raise TunerError(f"{override.option}: {override.text!r} is not a valid value") from error


def kept_overrides(
    file: YamlFile, old_text: str, recorded: SearchSpace, overrides: Sequence[Override]
) -> list[Override]:
    """Return what earlier sessions were told on the command line, and still holds.

    That is all but what the command line sets again, and what the new file gives another value than
    the old one did.

    Args:
        file: new file of the space.
        old_text: recorded text of the file, with the overrides of its session.
        recorded: recorded space, with the changes of all sessions.
        overrides: overrides of the new session.
    """
    try:
        old = YamlFile("recorded.yaml", old_text)
    except SpaceError:  # the text of a space that was made in Python
        return []
    plain = SearchSpace(compare=recorded.compare)  # which changes the defaults of `confirm:`
    told = {override.path: override for override in overrides_in(old_text)}
    for part, keys in _FREE.items():
        if not isinstance(file.value_at((part,)) or {}, dict):
            continue
        if (part,) in told and not isinstance(yaml.safe_load(told[part,].text), dict):
            del told[part,]  # `confirm=off`: nothing can be set in it, so its keys say the same
        settings, default = getattr(recorded, part), getattr(plain, part)
        for key in keys:
            value = getattr(settings, key)
            if value != _setting(default, key, file.value_at((part, key))):
                told[part, key] = Override.parse(f"{part}.{key}={json.dumps(value)}")
    again = [as_spelled(override.path, file.data) for override in overrides]

    def holds(override: Override) -> bool:
        path = as_spelled(override.path, file.data)
        is_told_again = any(
            each == path[: len(each)] or path == each[: len(path)] for each in again
        )
        return not is_told_again and (
            file.value_at(path) == old.value_at(as_spelled(override.path, old.data))
        )

    return [override for override in told.values() if holds(override)]


def _setting(default: BaseModel, key: str, value: Any) -> Any:
    """Return the setting that a value of a file means, or its default."""
    if value is None:
        return getattr(default, key)
    try:
        return getattr(type(default).model_validate({key: value}), key)
    except ValidationError:
        return value  # reading the file reports the mistake


def check_edit(old: SearchSpace, new: SearchSpace, name: str) -> None:
    """Check that a search may be resumed with an edited space.

    Raises:
        TunerError: if it may not; the error names all changes that are not allowed.
    """
    refused = list(_refused(old, new))
    if refused:
        raise TunerError(
            f"the search {name} cannot be resumed with {listed(refused, 'and')}; allowed changes "
            f"are {_ALLOWED}; for others start a new search"
        )


def needs_new_session(old: SearchSpace, new: SearchSpace) -> bool:
    """Return True if a driver that runs a search cannot go on with an edited space.

    Workers and storage are those with which its session began; all else is the conductor's.
    """
    return old.engine != new.engine


def changes(old: SearchSpace, new: SearchSpace) -> list[str]:
    """Return the names of the settings in which two spaces differ, such as `search.trials`."""
    names = []
    for part in SearchSpace.model_fields:
        before, after = getattr(old, part), getattr(new, part)
        if before == after:
            continue
        if isinstance(before, BaseModel) and isinstance(after, BaseModel):
            before, after = dict(before), dict(after)
        if isinstance(before, Mapping) and isinstance(after, Mapping):
            keys = {**before, **after}
            names += [f"{part}.{key}" for key in keys if before.get(key) != after.get(key)]
        else:
            names.append(part)
    return names


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
    yield from _refused_arms(old, new)
    if SCHEDULERS[old.search.scheduler].is_population and new.search.trials != old.search.trials:
        yield "another size of the population"


def _refused_arms(old: SearchSpace, new: SearchSpace) -> Iterator[str]:
    """Yield changes that would treat the arms of a comparison differently."""
    if new.compare is None or new.compare != old.compare:
        return
    before, after = arms_of(old), arms_of(new)
    if before != after:
        yield f"other values of {symbol(new.compare.by)}, the arms of compare"
    elif new.search.trials % len(after):
        yield f"{new.search.trials} trials, which {len(after)} arms cannot share equally"
    for finding in obstacles(new):
        yield f"{'.'.join(map(str, finding.place))} (with compare)"


def _refused_parameters(
    part: str, before: Mapping[str, Parameter], after: Mapping[str, Parameter]
) -> Iterator[str]:
    if list(before) != list(after):
        yield f"other entries of {part} or another order of its entries"
        return
    for key, old in before.items():
        new = after[key]
        moved = old.model_copy(update={"distribution": new.distribution})
        if moved != new or ((old.is_constant or new.is_constant) and old != new):
            yield f"another {part}.{key}"
        elif old.distribution.kind != new.distribution.kind:
            yield f"another kind of range for {part}.{key}"
