"""The name under which homes of version 61b80c3 registered the loader of their models.

MLflow stores the name of a module with each registered model, so this one stays importable.
"""

from tuner.publish.pyfunc import _load_pyfunc

__all__ = ["_load_pyfunc"]
