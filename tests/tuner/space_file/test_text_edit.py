"""One value of a text changes, and nothing else."""

from __future__ import annotations

import pytest

from tuner.errors import SpaceError
from tuner.space_file.shipped import shipped_spaces
from tuner.space_file.text_edit import with_value
from tuner.space_file.yaml_file import YamlFile

BLOCK = """\
# a study
budget:
  tokens: 5  # few
  reports: 2

hyperparameters:
  # the rate
  α_max: {log: [1e-3, 1e-2]}
search: {trials: 3, seed: 0}  # short
"""


@pytest.mark.parametrize(
    ("path", "value", "old", "new"),
    [
        (("budget", "tokens"), "1_000", "tokens: 5 ", "tokens: 1_000 "),
        (("budget", "flops"), "1e9", "reports: 2\n", "reports: 2\n  flops: 1e9\n"),
        (("max_learning_rate",), "1", "  # short\n", "  # short\nmax_learning_rate: 1\n"),
        (("hyperparameters", "max_learning_rate"), "0.1", "{log: [1e-3, 1e-2]}", "0.1"),
        (("hyperparameters", "γ"), "0.9", "1e-2]}\n", "1e-2]}\n  γ: 0.9\n"),
        (("search", "sampler"), "gp", "seed: 0}", "seed: 0, sampler: gp}"),
        (("search", "trials"), None, "trials: 3, ", ""),
        (("search", "seed"), None, ", seed: 0", ""),
        (("search",), None, "search: {trials: 3, seed: 0}  # short\n", ""),
        (("budget", "reports"), None, "  reports: 2\n", ""),
        (("budget", "none"), None, "", ""),
        (("hyperparameters", "α_max"), None, "# the rate\n  α_max: {log: [1e-3, 1e-2]}",
         "# the rate\n  {}"),
        (("engine", "workers"), "2", "# short\n", "# short\nengine: {workers: 2}\n"),
    ],
)  # fmt: skip
def test_value_is_set_where_it_stands(
    path: tuple[str, ...], value: str | None, old: str, new: str
) -> None:
    assert with_value(BLOCK, path, value) == BLOCK.replace(old, new)


@pytest.mark.parametrize(
    ("text", "path", "value"),
    [
        ("a: 1\n", ("a", "b"), "2"), ("a: [\n", ("a",), "2"), ("a: 1\n", ("a",), "}"),
        ("a: 1\n", ("a",), "1\nb: 2"), ("a: 1\n", ("a",), "1 # x\n"), ("- 1\n", ("a",), "2"),
        ("a: &x 1\nb: *x\n", ("a",), "2"), ("a: 1\n", ("a",), "[1] # ]"),
    ],
)  # fmt: skip
def test_what_cannot_be_set_is_refused_or_set_right(
    text: str, path: tuple[str, ...], value: str
) -> None:
    try:
        changed = with_value(text, path, value)
    except SpaceError as error:
        assert error.mistakes[0].message
    else:
        assert YamlFile("x", changed).value_at(path) == YamlFile("x", f"v: {value}").data["v"]


def test_values_of_the_shipped_spaces_can_be_changed() -> None:
    for file in shipped_spaces().values():
        text = file.read_text()
        data = YamlFile(file, text).data
        for section in ("hyperparameters", "budget"):
            path = section, list(data[section])[-1]
            changed = YamlFile(file, with_value(text, path, "new")).data
            assert changed[section].pop(path[1]) == "new"
            assert changed[section].items() <= data[section].items()
            assert len(changed) == len(data)
