"""Priors written into the text of a space."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.shipped import FOLDER
from tuner.space.parameter import Prior
from tuner.space_file.load import load_space
from tuner.space_file.prior import add_priors

PRIORS = {
    "max_learning_rate": Prior(centre=0.01, confidence=0.75),
    "batch_size": Prior(centre=16, confidence=0.75),
    "weight_decay": Prior(centre=0.0123456, confidence=0.75),
}
BLOCK = """\
hyperparameters:
  α_max:
    log: [1e-4, 3e-2]  # of the peak
  B:
    choice:
    - 8
    - 16

  lambda: {log: [1e-3, 1], prior: {centre: 0.5, confidence: low}}  # decay
  β2: 0.95
budget: {tokens: 10_000}
"""


def test_block_and_flow_entries_get_their_priors(tmp_path: Path) -> None:
    text = add_priors(BLOCK, PRIORS)
    path = tmp_path / "a.yaml"
    path.write_text(text, encoding="utf-8")
    found = {p.name: p.prior for p in load_space(path).searched}
    assert found == {
        "max_learning_rate": Prior(centre=0.01, confidence=0.75),
        "batch_size": Prior(centre=16, confidence=0.75),
        "weight_decay": Prior(centre=0.0123, confidence=0.75),
    }
    assert "# of the peak" in text
    assert "confidence: low" not in text
    assert text.endswith("  β2: 0.95\nbudget: {tokens: 10_000}\n")


@pytest.mark.parametrize("text", ["name: a\n", "hyperparameters: {α_max: 1e-3}\n", ""])
def test_text_without_searched_entries_stays(text: str) -> None:
    assert add_priors(text, PRIORS) == text


def test_shipped_space_stays_valid(tmp_path: Path) -> None:
    text = add_priors((FOLDER / "lm.yaml").read_text(encoding="utf-8"), PRIORS)
    path = tmp_path / "lm.yaml"
    path.write_text(text, encoding="utf-8")
    priors = {p.name: p.prior.centre for p in load_space(path).searched if p.prior}
    assert priors == {"max_learning_rate": 0.01, "batch_size": 16, "weight_decay": 0.0123}
