"""`tuner validate` of mutated spaces: a verdict in a bounded time and memory, whatever they say."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from model.spec.hyperparameters import SYMBOL_TABLE
from tests.mutations import peak_megabytes, time_limit
from tests.tuner.space_file.mutations import mutated
from tuner.cli import main

ROOT = Path(__file__).parents[3]
TEXTS = [p.read_text(encoding="utf-8") for p in sorted(ROOT.glob("search_spaces/*.yaml"))]
NUMBERS = [
    row.symbol for row in SYMBOL_TABLE.values()
    if row.kind is float and row.accepts(0.5)
]  # fmt: skip
SECONDS = 20  # validating takes less than one, on an idle machine
MEGABYTES = 200


def validate(file: Path, home: Path) -> int:
    with time_limit("validate", SECONDS):
        return main(["validate", "--space", str(file), "--home", str(home)])


def check(numbers: range, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "space.yaml"
    file.write_text(TEXTS[0], encoding="utf-8")
    assert validate(file, tmp_path) == 0  # imports, before memory is measured
    before = peak_megabytes()
    statuses = []
    for number in numbers:
        file.write_text(mutated(TEXTS, number), encoding="utf-8")
        capsys.readouterr()
        try:
            statuses.append(validate(file, tmp_path))
        except BaseException as error:
            raise AssertionError(f"mutation {number}:\n{file.read_text('utf-8')}") from error
        output = capsys.readouterr()
        assert statuses[-1] in (0, 2), number
        assert (statuses[-1] == 2) == (output.out == ""), number
        if statuses[-1]:
            lines = output.err.splitlines()
            assert all(line.startswith((f"{file}:", "tuner validate: ")) for line in lines), number
            assert max(map(len, lines)) < 1000, (number, max(lines, key=len))
    assert peak_megabytes() - before < MEGABYTES
    assert {0, 2} == set(statuses)  # some mutations are harmless


def _alternatives(name: str, number: int) -> str:
    lines = (f"    - {{value: 0.{i + 1:04}, when: {{B: {8 * (i + 1)}}}}}\n" for i in range(number))
    return f"  {name}:\n{''.join(lines)}"


_HYPERPARAMETERS = "budget: {tokens: 1_000_000}\nhyperparameters:\n"
_ROWS = ("α_max", "λ", "τ", "β1", "β2", "p_drop", "ε", "ε_ls")
# Files whose checks are many more than their lines.
HEAVY = {
    "alternatives that overlap": _HYPERPARAMETERS + "  optimizer: {choice: [adamw, adam]}\n  λ:\n"
    + "".join(f"    - {{value: {i}e-4, when: {{optimizer: adam}}}}\n" for i in range(1900)),
    "many alternatives": _HYPERPARAMETERS
    + f"  B: {{choice: {[8 * i for i in range(1, 64)]}}}\n"
    + "".join(_alternatives(name, 63) for name in _ROWS),
    "paths of conditions": _HYPERPARAMETERS + "".join(
        f"  {name}: {{value: 0.5, when: {{B: 8{''.join(f', {n}: 0.5' for n in NUMBERS[:i])}}}}}\n"
        for i, name in enumerate(NUMBERS)
    ) + "  B: {choice: [8, 16]}\n",
    "misspelled": "".join(f"lerning_rate{i}: 1\n" for i in range(8000)),
    "points": _HYPERPARAMETERS + "  B: {choice: [8, 16]}\n"
    + f"search: {{trials: 10_000, try_first: [{'{B: 8}, ' * 4000}]}}\n",
    "trials": _HYPERPARAMETERS + "  B: {choice: [8, 16]}\n"
    + "search: {trials: 1_000_000, scheduler: hyperband, reduction_factor: 100}\n",
    "values": f"a: [{'1,' * 90_000}]",
    "corners": _HYPERPARAMETERS + "  α_max: {log: [1e-3, 1e-2]}\n  α_min: {log: [1e-5, 1e-4]}\n"
    + "".join(
        f"  {n}: {{fraction_of: λ, uniform: [0.1, 0.2]}}\n" for n in ("τ", "β1", "β2", "ε", "ε_ls")
    ) + "  λ: {uniform: [0.1, 0.2]}\n  B: {choice: [8, 16]}\n  T_warmup: {int: [1, 2]}\n"
    + f"model: {{n_heads: 2, d_ff: 32, context_length: {{choice: {[*range(16, 272, 8)]}}}}}\n",
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("case", HEAVY)
def test_validate_of_heavy_files(
    tmp_path: Path, case: str, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "space.yaml"
    file.write_text(HEAVY[case], encoding="utf-8")
    assert validate(file, tmp_path) in (0, 2)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) <= 101
    assert max(map(len, lines), default=0) < 1000


@pytest.mark.slow
def test_validate_of_some_mutations(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    check(range(150), tmp_path, capsys)


@pytest.mark.slow
@pytest.mark.skipif("TUNER_FUZZ" not in os.environ, reason="'make fuzz' runs it, for a minute")
def test_validate_of_many_mutations(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    check(range(150, 2000), tmp_path, capsys)
