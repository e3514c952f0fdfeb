"""Hyperparameter search for Transformers: many trials train as one model.

Public names are imported on first use: the command line must start quickly, and the process of a
trial must not load torch.
"""

from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
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
    "GenerationSettings": "trained.generate",
    "Prompt": "trained.generate",
    "export": "trained.export",
    "delete_search": "housekeeping.deletion",
    "clean": "housekeeping.leftovers",
    "replay": "trained.replay",
    "write_report": "report.write",
    "write_pictures": "report.write",
    "Client": "serve.remote.client",
    "Home": "home.home",
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
    problem = hidden_model()
    if problem:
        raise ImportError(problem)
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)


def hidden_model() -> str:
    """Return what is wrong if a module of the user hides our package `model`; empty if none does.

    Python seeks modules in the folder of a script, or in the working folder for `python -m`, before
    it seeks them among the installed ones. The module of the user is not run.
    """
    try:
        spec = find_spec("model")
    except ValueError:  # a module that something else than an import has made
        spec = None
    folders = (spec.submodule_search_locations if spec else None) or ()
    if any(Path(folder, "spec", "hyperparameters.py").is_file() for folder in folders):
        return ""
    file = (spec and spec.origin) or "a module"
    return (
        f"{file} hides the package `model` of tuner; rename it, run from another folder, or use "
        f"the command `tuner` or `python -P -m tuner`, which do not look for modules in this folder"
    )


def __dir__() -> list[str]:
    return __all__
