"""A list of budgets, and what contradicts it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.tuner.simulated_search import FACTS
from tuner.errors import SpaceError
from tuner.schedulers.expected_tokens import expected_tokens
from tuner.space.cool_down import branch_specs
from tuner.space.settings import Budget
from tuner.space.space import SearchSpace
from tuner.space_file.load import load_space
from tuner.space_file.overrides import Override

TEXT = """\
model: {context_length: 32}
hyperparameters: {schedule: wsd, α_max: {log: [1e-3, 1e-2]}, T_warmup: 5, B: 8}
budget: {tokens: [10_240, 20_480, 40_960], reports: 10}
search: {trials: 3, scheduler: none}
confirm: off
"""


def load(folder: Path, *settings: str) -> SearchSpace:
    file = folder / "space.yaml"
    file.write_text(TEXT, encoding="utf-8")
    return load_space(file, [Override.parse(setting) for setting in settings])


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("search.scheduler=asha", "budget.tokens: a list of budgets needs search.scheduler none"),
        ("hyperparameters.schedule=cosine", "budget.tokens: a list of budgets needs schedule wsd"),
        ("hyperparameters.schedule={choice: [wsd, linear]}", "got linear"),
        ("proxy={width: 1/2}", "has no rule for proxies"),
        ("budget.tokens=[4096, 2048]", "from the shortest to the longest, got [4096, 2048]"),
        ("budget.tokens=[2048, 2048]", "from the shortest to the longest, got [2048, 2048]"),
        ("budget.tokens=[0, 2048]", "from the shortest to the longest, got [0, 2048]"),
        ("budget.tokens=[a, 2048]", "from the shortest to the longest, got [a, 2048]"),
        ("budget.tokens=[true, 2048]", "from the shortest to the longest, got [true, 2048]"),
        ("budget.tokens=[1.5, 2048]", "from the shortest to the longest, got [1.5, 2048]"),
        ("budget.tokens=[]", "from the shortest to the longest, got []"),
        ("budget.tokens=[2000, 2001, 4000]", "must take more updates than the one before, got 8"),
        ("budget.shorter=[1]", "unknown key in budget: shorter"),
        ("budget.flops=1e9", "give exactly one of"),
        ("hyperparameters.T_warmup=39", "T_warmup + T_cooldown must not exceed T_total"),
        ("hyperparameters.T_warmup={fraction_of: T_total, value: 0.5}", "T_warmup must not exceed"),
        ("hyperparameters.λ={fraction_of: T_total, value: 1e-3}", "λ must not depend on T_total"),
        ("hyperparameters.s_final=0.5", "T_prune_start must not depend on T_total"),
    ],
)
def test_what_contradicts_a_list_of_budgets_is_refused(
    tmp_path: Path, setting: str, message: str
) -> None:
    with pytest.raises(SpaceError) as error:
        load(tmp_path, setting)
    (text,) = str(error.value).splitlines()
    assert message in text


@pytest.mark.parametrize(
    "settings",
    [
        [],
        ["hyperparameters.T_warmup={fraction_of: T_total, uniform: [0, 0.2]}"],
        ["hyperparameters.T_cooldown=20"],
        ["hyperparameters.T_cooldown={fraction_of: T_total, choice: [0.1, 0.5]}"],
        ["hyperparameters={schedule: wsd, B: 8, s_final: 0.5, T_prune_start: 9, T_prune_end: 30}"],
    ],
    ids=str,
)
def test_branches_share_the_updates_of_their_trunk(tmp_path: Path, settings: list[str]) -> None:
    space = load(tmp_path, *settings)
    drawn = space.defaults()
    trunk = space.spec(drawn, FACTS, 0)
    specs = branch_specs(space, trunk, drawn, FACTS)
    assert [spec.budget_tokens for spec in specs] == [10_240, 20_480]
    assert {s.hyperparameters.warmup_steps for s in specs} == {trunk.hyperparameters.warmup_steps}
    assert {spec.report_tokens for spec in specs} == {trunk.report_tokens}


def test_space_with_several_budgets_is_read_and_recorded(tmp_path: Path) -> None:
    space = load(tmp_path)
    assert (space.budget.tokens, space.budget.shorter) == (40_960, (10_240, 20_480))
    assert SearchSpace.model_validate_json(space.model_dump_json()) == space
    text = ", and is cooled down after 10,240 and 20,480 tokens too"
    assert space.budget.shorter_text == text
    one = load(tmp_path, "budget.tokens=[40_960]")
    assert one.budget.shorter_text == ""
    assert one.budget == load(tmp_path, "budget.tokens=40960").budget
    # the trunk, 0.2 of the second, and of the first what follows the report at 8,192 tokens, 0.2
    for tokens in expected_tokens(space, FACTS):
        assert tokens == 3 * (40_960 + 2_048 + 4_096)
    with pytest.raises(ValueError, match=r"budget\.shorter must ascend to budget\.tokens"):
        Budget(tokens=5, shorter=(7,))


def test_cool_down_begins_at_the_report_that_rounding_would_miss(tmp_path: Path) -> None:
    """Of 64 updates 51 are at constant rate, and the fourth of ten reports is after update 52."""
    text = "[4_096, 8_192, 16_384, 32_768, 65_536]"
    space = load(tmp_path, f"budget.tokens={text}", "hyperparameters.T_warmup=2")
    drawn = space.defaults()
    trunk = space.spec(drawn, FACTS, 0)
    specs = branch_specs(space, trunk, drawn, FACTS)
    assert [(s.hyperparameters.total_steps, s.hyperparameters.cooldown_steps) for s in specs] == [
        (16, 3), (32, 6), (64, 12), (128, 25)
    ]  # fmt: skip
    fixed = load(tmp_path, f"budget.tokens={text}", "hyperparameters.T_warmup=2",
                 "hyperparameters.T_cooldown=13")  # fmt: skip
    kept = branch_specs(fixed, fixed.spec(drawn, FACTS, 0), drawn, FACTS)
    assert {spec.hyperparameters.cooldown_steps for spec in kept} == {13}
