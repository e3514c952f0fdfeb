"""Names of searches and trials: the rule that every command and function checks.

A name becomes a folder of the home and a part of `SEARCH/TRIAL`, so it must not be a path.
"""

from __future__ import annotations

from tuner.errors import RecordError
from tuner.texts.formatting import shown

_LONGEST = 100  # characters; file systems allow 255 bytes, and Ray and MLflow add to a name
_SEPARATORS = "/\\"
_OF_SHELLS = "$`;&|<>(){}[]*?!'\"~#"  # names stand in commands that people copy, and complete


def check_name(name: str, noun: str = "search") -> str:
    """Return a name that may be looked up.

    Args:
        name: the name, as a user gave it.
        noun: what it names.

    Raises:
        RecordError: if the name is empty, has a separator of paths, a control character or one
            that shells interpret, or begins with a dot or a dash.
    """
    if not name.strip():
        raise RecordError(f"the name of a {noun} is empty; is a shell variable unset?")
    problem = ""
    if any(separator in name for separator in _SEPARATORS):
        problem = "has a path separator in it"
    elif name[0] in ".-":
        problem = f"begins with a {'dot' if name[0] == '.' else 'dash'}"
    elif not name.isprintable():
        problem = "has a character in it that cannot be printed"
    elif special := next((c for c in name if c in _OF_SHELLS), None):
        problem = f"has {special} in it, which shells interpret"
    if problem:
        raise RecordError(
            f"{shown(name)} {problem}, so it is no name of a {noun}; 'tuner list' has the names"
        )
    return name


def is_name(name: str) -> bool:
    """Return True if `check_name` takes a name."""
    try:
        check_name(name)
    except RecordError:
        return False
    return True


def check_new_name(name: str) -> str:
    """Return a name that a new search may have.

    Raises:
        RecordError: as `check_name`; or if the name is not made of letters, digits, dots, dashes
            and underscores, begins with one of these three, or is too long.
    """
    check_name(name)
    if not name[0].isalnum() or not all(c.isalnum() or c in "-_." for c in name):
        raise RecordError(
            f"{shown(name)} cannot be the name of a search; use letters, digits, '-', '_' and '.', "
            "and begin with a letter or digit"
        )
    if len(name.encode()) > _LONGEST:
        raise RecordError(
            f"the name {shown(name)} is too long for a search; use at most {_LONGEST} letters"
        )
    return name


def check_run_name(name: str) -> str:
    """Return the name of a trial, a run id or SEARCH/TRIAL, that may be looked up.

    Raises:
        RecordError: if a part of the name is as `check_name` forbids.
    """
    search, slash, number = name.rpartition("/")
    if slash:
        check_name(search)
    check_name(number if slash else name, "trial")
    return name
