"""Checks of `proxy:` against the model, the hyperparameters and the budget."""

from __future__ import annotations

from collections.abc import Mapping

from model.spec.hyperparameters import SYMBOL_TABLE
from model.spec.symbol import FractionOf
from model.spec.trial import SCALED_VALUES
from tuner.formatting import listed, shown
from tuner.space.parameter import Parameter, Value
from tuner.space.settings import Proxy
from tuner.space.space import SearchSpace
from tuner.space_file.yaml_file import Place, YamlFile

_VOCABULARY = 65_536  # any: it does not change which sizes can be divided
# rows that count updates of the complete training
_STEPS = tuple(
    row.name
    for row in SYMBOL_TABLE.values()
    if isinstance(row.default, FractionOf) and row.default.name == "total_steps"
)


class ProxyChecks:
    """Checks of the proxy; mistakes are noted in the file.

    Args:
        space: space of the file; wrong sections have their defaults.
        file: file of the space.
        places: name of a parameter → its place in the file.
    """

    def __init__(self, space: SearchSpace, file: YamlFile, places: Mapping[str, Place]) -> None:
        self._space = space
        self._file = file
        self._places = places

    def run(self) -> None:
        """Note all mistakes. A check runs only if the sections that it reads are valid."""
        proxy, wrong = self._space.proxy, self._file.is_wrong
        if proxy is None:
            return
        if self._space.init_from is not None:
            message = "a proxy starts from random weights; leave out init_from or proxy"
            self._file.note(("proxy",), message, at_key=True)
        if not wrong("hyperparameters", "budget"):
            self._check_lengths(proxy)
        if not wrong("hyperparameters"):
            self._check_batch_rule(proxy)
            for parameter in self._space.hyperparameters.values():
                self._check_values(parameter)
        if not wrong("hyperparameters", "model"):
            self._check_shapes(proxy)

    def _note(self, parameter: Parameter, message: str) -> None:
        place = self._places[parameter.name]
        self._file.note(place, f"{place[-1]}: {message}")

    def _check_lengths(self, proxy: Proxy) -> None:
        """Check that the proxy's number of updates follows from the target's."""
        if proxy.tokens != 1 and self._space.budget.tokens is None:
            message = "proxy.tokens is a share of budget.tokens; give the budget in tokens"
            self._file.note(("proxy", "tokens"), message)
        for parameter in self._space.hyperparameters.values():
            if parameter.name not in _STEPS or parameter.fraction_of or proxy.steps == 1:
                continue
            if any(parameter.distribution.ends()):  # 0 is 0 of the proxy, too
                self._note(
                    parameter,
                    "a number of updates of the target is none of its proxy, which trains "
                    "fewer or more; give a share, {fraction_of: T_total, …}",
                )

    def _check_batch_rule(self, proxy: Proxy) -> None:
        if proxy.batch_rule != "off" and "muon" in (self._space.possible("optimizer") or []):
            message = "is derived for adamw, and the space has muon; leave out one of them"
            self._file.note(("proxy", "batch_rule"), f"proxy.batch_rule {message}")

    def _check_values(self, parameter: Parameter) -> None:
        """Check that a row has only values that the multipliers are known for."""
        if parameter.name not in SCALED_VALUES:
            return
        allowed = SCALED_VALUES[parameter.name]
        values: tuple[Value, ...] = tuple(
            parameter.distribution.possible_values() or parameter.distribution.ends()
        )
        wrong = [value for value in values if value not in allowed]
        if wrong:
            message = f"{shown(wrong[0])} does not transfer from a proxy to its target"
            self._note(parameter, f"{message}; with proxy: it must be {listed(allowed)}")

    def _check_shapes(self, proxy: Proxy) -> None:
        """Check that every target has a proxy."""
        try:
            targets = self._space.targets(_VOCABULARY)
        except ValueError:
            return  # `SpaceChecks` notes the mistake of the target itself
        for target in targets:
            try:
                proxy.shrink(target)
            except ValueError as error:
                self._file.note(("proxy",), str(error))
                return
