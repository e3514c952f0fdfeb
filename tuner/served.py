"""Loader of the models that version 61b80c3 registered.

MLflow stores the name of this module with each of these models, so it must stay importable.
"""

from tuner.publish.pyfunc import _load_pyfunc

__all__ = ["_load_pyfunc"]
