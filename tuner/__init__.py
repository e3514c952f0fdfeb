"""Hyperparameter search for Transformers: many trials train as one model.

Names are imported when they are first used: the command line must start quickly, and a trial's
process must not load torch.
"""

import sys
from importlib import import_module
from types import ModuleType
from typing import Any

_HOME = {
    "SearchSpace": "space",
    "load_space": "space_file",
    "search": "search",
    "resume": "search",
    "load_search": "past",
    "load_trial": "trained",
    "sample": "generate",
    "generate": "generate",
    "export": "export",
    "replay": "replay",
    "TunerError": "errors",
}

__all__ = sorted(_HOME)
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """Import a public name from its home."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return __all__


class _Package(ModuleType):
    """`tuner.search` and `tuner.replay` are functions; so are the modules that hold them called.

    Importing such a module would set the package's attribute of that name to the module.
    """

    def __setattr__(self, name: str, value: Any) -> None:
        if not (name in _HOME and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
