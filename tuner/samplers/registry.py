"""Registry of the samplers: the module with the name of each has its `KIND`."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import get_args

from tuner.samplers.kind import SamplerKind
from tuner.space.settings import SamplerName

SAMPLERS: Mapping[SamplerName, SamplerKind] = {
    name: import_module(f"tuner.samplers.{name}").KIND for name in get_args(SamplerName)
}
