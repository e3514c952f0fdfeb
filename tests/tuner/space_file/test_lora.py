"""The section `lora:` of a space: parameters like those of `model:` and `hyperparameters:`."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.tuner.space_file.test_load import BUDGET, mistakes_of, split_marks
from tuner.space.space import SearchSpace
from tuner.space_file.load import load_space
from tuner.space_file.overrides import Override

START = f"init_from: {{huggingface: model}}\n{BUDGET}"


def read(path: Path, text: str, *overrides: Override) -> SearchSpace:
    path.write_text(f"{START}{text}", encoding="utf-8")
    return load_space(path, overrides)


def test_entries_are_searched_like_sizes_and_hyperparameters(tmp_path: Path) -> None:
    text = """\
lora:
  rank: {choice: [4, 16]}
  targets: {choice: [attention, [v_proj, q_proj]]}
  alpha: {log: [4, 64]}
  dropout: 0.05
  scaling: alpha/sqrt(rank)
  b_rate_factor: {choice: [1, 4]}
"""
    space = read(tmp_path / "x.yaml", text)
    assert space.searched_names == [
        "lora_rank", "lora_targets", "lora_alpha", "lora_b_rate_factor"
    ]  # fmt: skip
    ranks = {(a.lora_rank, a.lora_targets) for a in space.shapes(300)}
    assert ranks == {(r, t) for r in (4, 16) for t in ("attention", "q_proj,v_proj")}
    h = space.derive({"lora_alpha": 8.0}, 10_000)
    assert (h.lora_alpha, h.lora_dropout, h.lora_scaling) == (8.0, 0.05, "alpha/sqrt(rank)")
    first = space.defaults()
    assert first["lora_rank"] in (4, 16)
    assert first["lora_alpha"] == 16
    set_by_option = Override("--set lora.rank=2", ("lora", "rank"), "2")
    (path,) = tmp_path.glob("x.yaml")
    assert {a.lora_rank for a in load_space(path, [set_by_option]).shapes(300)} == {2}


def test_defaults_and_off(tmp_path: Path) -> None:
    (shape,) = read(tmp_path / "x.yaml", "lora: {}\n").shapes(300)
    assert (shape.lora_rank, shape.lora_targets) == (8, "all")
    middle = read(tmp_path / "y.yaml", "lora: {rank: {int_log: [1, 64]}}\n")
    assert middle.defaults() == {"lora_rank": 8}
    (off,) = read(tmp_path / "z.yaml", "lora: off\n").shapes(300)
    assert not off.lora_rank


MISTAKES = {
    "no start": (f"▲lora: {{rank: 4}}\n{BUDGET}", "lora: LoRA adapts pretrained weights; give "
                 "init_from: {huggingface: FOLDER}, or leave lora out"),
    "key": (f"lora: {{▲ranks: 4}}\n{START}", "unknown key in lora: ranks; did you mean rank?"),
    "rank": (f"lora: {{rank: ▲2000}}\n{START}", "lora_rank must be at most 1024, got 2000"),
    "no rank": (f"lora: {{rank: ▲0}}\n{START}", "lora_rank must be at least 1, got 0; lora: off "
                "trains all weights"),
    "target": (f"lora: {{targets: ▲[q_proj, query]}}\n{START}", "lora_targets must be all, "
               "attention, mlp, or different ones of q_proj, k_proj, v_proj, o_proj, gate_proj, "
               "up_proj, down_proj; got 'query'"),
    "alpha": (f"lora: {{alpha: ▲0}}\n{START}",
              "lora_alpha must be a number in (0, 100000], got 0"),
    "scaling": (f"lora: {{scaling: ▲alpha}}\n{START}", "lora_scaling must be one of alpha/rank | "
                "alpha/sqrt(rank), got alpha; did you mean alpha/rank?"),
    "section": (f"lora: ▲8\n{START}", "lora must be off or a mapping with the keys rank, "
                "targets, alpha, scaling, dropout, b_rate_factor, got 8"),
    "in model": (f"model: {{▲lora_rank: 4}}\n{START}", "lora_rank belongs to the section lora:, "
                 "as rank; move it there"),
    "in hyperparameters": (f"hyperparameters: {{▲α_lora: 4}}\n{START}", "α_lora belongs to the "
                           "section lora:, as alpha; move it there"),
    "pruning": (f"lora: {{}}\nhyperparameters: {{s_final: ▲0.5}}\n{START}",
                "s_final: LoRA's B begins at zero and cannot be pruned; leave one of them out"),
    "moments": (f"lora: {{}}\ninit_from: {{search: lm, optimizer_state: ▲true}}\n{BUDGET}",
                "LoRA trains none of the loaded weights; leave optimizer_state out"),
    "proxy": (f"▲lora: {{}}\nproxy: {{tokens: 0.5}}\n{BUDGET}", "lora: LoRA has no rules by which "
              "a proxy stands for its target; leave out lora or proxy"),
}  # fmt: skip


@pytest.mark.parametrize("name", MISTAKES)
def test_mistake_is_one_sentence_at_its_place(tmp_path: Path, name: str) -> None:
    marked, message = MISTAKES[name]
    text, places = split_marks(marked)
    mistakes = mistakes_of(tmp_path / "x.yaml", text)
    assert [(m.line, m.column) for m in mistakes] == places
    assert [m.message for m in mistakes] == [message]
