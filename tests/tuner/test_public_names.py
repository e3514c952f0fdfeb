"""The public names of the two packages."""

from types import ModuleType

import pytest

import model
import tuner


@pytest.mark.parametrize("package", [model, tuner], ids=lambda package: package.__name__)
def test_package_imports_each_public_name(package: ModuleType) -> None:
    for name in package.__all__:
        assert getattr(package, name).__name__ == name if name != "SYMBOL_TABLE" else True
        assert name in dir(package)


@pytest.mark.parametrize("package", [model, tuner], ids=lambda package: package.__name__)
def test_package_refuses_an_unknown_name(package: ModuleType) -> None:
    with pytest.raises(AttributeError, match="has no attribute 'unknown'"):
        _ = package.unknown
