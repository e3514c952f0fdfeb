"""Hyperparameter search for Transformers: many trials train as one model.

Public names are imported on first use: the command line must start quickly, and the process of a
trial must not load torch.
"""

from importlib import import_module
from typing import Any

_HOME = {
    "SearchSpace": "space.space",
    "load_space": "space_file.load",
    "search": "driver.search",
    "resume": "driver.search",
    "load_search": "trained.load_search",
    "load_trial": "trained.load_trial",
    "sample": "trained.generate",
    "generate": "trained.generate",
    "export": "trained.export",
    "delete_search": "housekeeping.deletion",
    "clean": "housekeeping.leftovers",
    "replay": "trained.replay",
    "write_report": "report.write",
    "write_pictures": "report.write",
    "Home": "home",
    "SearchResult": "results.result",
    "TrainedTrial": "trained.load_trial",
    "TunerError": "errors",
    "View": "driver.view",
}

__all__ = sorted(_HOME)
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """Import a public name from its module."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return __all__
