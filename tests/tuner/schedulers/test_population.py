"""The population of pbt and pb2: who is replaced by whom, and who trains when."""

from __future__ import annotations

import random
from collections import defaultdict
from pathlib import Path

import pytest

from model.spec.trial import LONGEST_CHAIN
from tests.tuner.schedulers.simulation import Draw, Search, drawn, facts, noise
from tuner.schedulers.pbt import PBT
from tuner.schedulers.population import Population
from tuner.schedulers.registry import SCHEDULERS
from tuner.schedulers.scheduler import Branch, Decision, New, SchedulerContext
from tuner.space.parameter import Constant, Parameter, Range, Value
from tuner.space.space import SearchSpace
from tuner.space_file.load import load_space

NOBODY = frozenset[int]()
BOTH = ["pbt", "pb2"]
pytestmark = pytest.mark.usefixtures("few_draws")


def population(
    name: str, members: int, slots: int, *, reports: int = 8, seed: int = 0, **more: object
) -> Search:
    chosen = frozenset({0}) if more.pop("chosen", False) else NOBODY
    given = facts(name, reports=reports, trials=members, never_stopped=chosen)
    scheduler = SCHEDULERS[given.space.search.scheduler].make(given)
    worth = more.pop("worth", noise(seed))
    return Search(given, scheduler, slots, members, worth, seed, **more)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", BOTH)
@pytest.mark.parametrize("slots", [3, 8])
def test_population_replaces_its_worst_quarter_by_its_best(name: str, slots: int) -> None:
    """With slots in lockstep: two of eight at each of three exchange points."""
    replaced = 0
    for seed in range(5):
        done = population(name, 8, slots, seed=seed, lockstep=True).run()
        points: dict[int, dict[int, float]] = defaultdict(dict)
        newest: dict[int, int] = {}
        left: set[int] = set()  # those that train no more
        left: set[int] = set()  # those that train no more
        for call, (args, _), answer in done.calls:
            if call == "judge":
                number, tokens, value = args
                newest[number] = tokens // 200
                if tokens % 200 == 0:
                    points[tokens // 200][number] = value
            elif isinstance(answer, Branch):
                point = newest[answer.replaces]
                ranking = sorted(points[point], key=lambda n, p=point: points[p][n])
                if slots == 8:
                    assert len(ranking) == 8
                    assert answer.replaces in ranking[6:]
                    assert answer.parent in ranking[:2]
                else:  # the last ones of a round may still be under way
                    assert answer.replaces in ranking[len(ranking) - len(ranking) // 4 :]
                    best = [n for n in ranking[: len(ranking) // 4] if n not in left]
                    best = best or [next(n for n in ranking if n not in left)]
                    assert answer.parent in best
                replaced += 1
                left.add(answer.replaces)
            elif call == "end":
                left.add(args[0])
        assert len(done.states("finished")) == 8
    assert replaced == 5 * 6 if slots == 8 else 5 * 4 <= replaced <= 5 * 6


@pytest.mark.parametrize("name", BOTH)
def test_population_never_pauses_with_enough_slots(name: str) -> None:
    for slots in (8, 20):
        for lockstep in (False, True):
            done = population(name, 8, slots, lockstep=lockstep).run()
            assert not any(answer is Decision.PAUSE for _, _, answer in done.calls)
            copies = sum(isinstance(answer, Branch) for _, _, answer in done.calls)
            assert copies == 6 if lockstep else copies > 0


@pytest.mark.parametrize("name", BOTH)
@pytest.mark.parametrize("slots", [1, 3])
def test_population_advances_together(name: str, slots: int) -> None:
    """No member is more than one exchange point ahead of one that waits."""
    search = population(name, 8, slots, seed=4)
    search.fill()
    while search.training:
        search.step()
        search.fill()
        if len(search.board) < 8:
            continue
        waiting = [search.board[n].tokens for n in search.states("paused")]
        ahead = max((search.board[n].tokens for n in search.training), default=0)
        assert ahead - min(waiting, default=ahead) <= 2 * 200
    assert len(search.states("finished")) == 8


@pytest.mark.parametrize("name", BOTH)
def test_population_replaces_what_diverged(name: str) -> None:
    """But not a copy that does not live to its first exchange point."""
    given = facts(name, reports=8, trials=4, never_stopped=NOBODY)
    tested = SCHEDULERS[given.space.search.scheduler].make(given)
    for number in range(4):
        assert tested.choose(may_start=True) == New()
        tested.add(number, drawn(given.space, random.Random(number)))
    tested.end(3, 100, None)
    assert tested.choose(may_start=False) is None  # nobody can be copied yet
    for number in range(3):
        tested.judge(number, 100, float(number))
        assert tested.choose(may_start=False) is None
    for number in range(3):
        assert tested.judge(number, 200, float(number)) in {Decision.CONTINUE, Decision.PAUSE}
    choice = tested.choose(may_start=False)
    assert isinstance(choice, Branch)
    assert (choice.parent, choice.replaces) == (0, 3)
    tested.add(4, choice.draw)
    tested.end(4, 300, None)
    left = [tested.choose(may_start=False) for _ in range(4)]
    assert not any(isinstance(choice, Branch) for choice in left)


@pytest.mark.parametrize("name", BOTH)
def test_population_keeps_never_stopped_trials_and_copies_them(name: str) -> None:
    def worth(number: int, draw: Draw, tokens: int) -> float:
        return (9.0 if worst else -9.0) if number == 0 else number + 100 / tokens

    for worst in (False, True):
        done = population(name, 8, 3, chosen=True, worth=worth, lockstep=True).run()
        assert done.board[0].state == "finished"
        is_copied = any(trial.parent == 0 for trial in done.board.values())
        assert is_copied != worst


@pytest.mark.parametrize("name", BOTH)
def test_population_explores_only_what_may_change(name: str) -> None:
    done = population(name, 12, 4, reports=16, seed=2).run()
    copies = [
        (trial, done.board[trial.parent])
        for trial in done.board.values()
        if trial.parent is not None
    ]
    assert len(copies) > 10
    for copy, parent in copies:
        assert copy.draw["batch_size"] == parent.draw["batch_size"]
        assert copy.draw.keys() == parent.draw.keys()
        assert copy.draw != parent.draw
        assert 1e-4 <= float(copy.draw["max_learning_rate"]) <= 1e-1
        assert 0 <= float(copy.draw["min_learning_rate/max_learning_rate"]) <= 0.5


@pytest.mark.parametrize("name", BOTH)
def test_population_explores_by_seed_and_number(name: str) -> None:
    """Another seed explores otherwise; the same one does not, whatever was asked in between."""

    def lineage(seed: int, *, nosy: bool) -> list[tuple[int | None, Draw]]:
        given = facts(name, reports=8, trials=8, never_stopped=NOBODY, seed=seed)
        search = Search(given, SCHEDULERS[name].make(given), 3, 8, noise(0))  # type: ignore[index]
        search.fill()
        while search.training:
            search.step()
            search.fill()
            for _ in range(3 * nosy):
                if len(search.training) == 0:
                    assert search.scheduler.choose(may_start=False) is None
        return [(trial.parent, trial.draw) for trial in search.board.values()]

    assert lineage(1, nosy=False) == lineage(1, nosy=True)
    assert lineage(1, nosy=False) != lineage(2, nosy=False)


# draws ---------------------------------------------------------------------------------------


def test_pbt_multiplies_divides_or_redraws() -> None:
    given = facts("pbt")
    tested, draw = PBT(given), drawn(given.space, random.Random(0))
    tested.add(0, draw | {"weight_decay": 0.03})
    ratios = []
    for copy in range(1000):
        decay = tested.explore(tested.members[0], copy)["weight_decay"]
        ratios.append(round(float(decay) / 0.03, 9))
    assert ratios.count(1.2) / 1000 == pytest.approx(3 / 8, abs=0.04)
    assert ratios.count(0.833333333) / 1000 == pytest.approx(3 / 8, abs=0.04)
    anew = [ratio for ratio in ratios if ratio not in {1.2, 0.833333333}]
    assert min(anew) < 0.1
    assert max(anew) > 10


def test_pbt_moves_counts_and_choices(tmp_path: Path) -> None:
    space = conditional(tmp_path)
    given = SchedulerContext(space, 100, 800, NOBODY, 10_000)
    tested = PBT(given)
    draw: dict[str, Value] = {
        "schedule": "wsd",
        "max_learning_rate[1]": 0.01,
        "beta2": 0.99,
        "warmup_steps": 3,
        "cooldown_steps/total_steps": 0.4,
    }
    seen = defaultdict(set)
    tested.add(0, draw)
    for copy in range(200):
        new = tested.explore(tested.members[0], copy)
        for label, value in new.items():
            seen[label].add(value)
        space.derive(new, 10_000)
        active = {p.label for p in space.searched if space.is_drawn(p, new)}
        assert new.keys() == active | {"optimizer"} & new.keys()
    assert {2, 4} <= seen["warmup_steps"]
    assert seen["schedule"] == {"wsd", "cosine", "linear"}


def conditional(
    tmp_path: Path, betas: str = "0.9, 0.99, 0.999", peak: str = "1e-3, 1e-1"
) -> SearchSpace:
    """A space with conditions, alternatives and rules that many draws break."""
    file = tmp_path / "space.yaml"
    text = SPACE.replace("BETAS", betas).replace("PEAK", peak)
    file.write_text(text, encoding="utf-8")
    return load_space(file)


SPACE = """\
hyperparameters:
  schedule: {choice: [cosine, wsd, linear]}
  α_max:
    - {log: [PEAK], when: {schedule: [wsd, cosine]}}
    - {log: [1e-4, 1e-2], when: {schedule: linear}}
  β2: {choice: [BETAS]}
  T_warmup: {int: [1, 60]}
  T_cooldown: {fraction_of: T_total, uniform: [0.1, 0.5], when: {schedule: wsd}}
  B: 8
model: {context_length: 16, d_model: 16, n_heads: 2}
budget: {tokens: 16000, reports: 8}
search: {scheduler: pbt, trials: 8}
"""


# what a specification allows -----------------------------------------------------------------


def test_population_makes_no_chain_longer_than_a_specification() -> None:
    def worth(number: int, draw: Draw, tokens: int) -> float:
        return -number  # the newest copy is the best: chains grow as fast as they can

    given = facts(
        "pbt", reports=150, trials=4, never_stopped=NOBODY, perturb_reports=1, report_tokens=10
    )
    done = Search(given, PBT(given), 4, 4, worth, lockstep=True).run()
    links: dict[int, int] = {}
    for number, trial in done.board.items():
        links[number] = 1 if trial.parent is None else links[trial.parent] + 1
    assert max(links.values()) == LONGEST_CHAIN
    assert len(done.states("finished")) == 4


@pytest.mark.parametrize("name", BOTH)
def test_population_explores_an_edited_space(name: str, tmp_path: Path) -> None:
    space, edited = conditional(tmp_path), conditional(tmp_path, "0.95, 0.99", "1, 3")
    draw: dict[str, Value] = {
        "schedule": "cosine",
        "max_learning_rate[1]": 0.01,
        "beta2": 0.999,
        "warmup_steps": 3,
    }
    tested = SCHEDULERS[name].make(SchedulerContext(space, 100, 800, NOBODY, 10_000))  # type: ignore[index]
    assert isinstance(tested, Population)
    tested.add(0, draw)
    tested.judge(0, 200, 1.0)
    tested.edit(edited)
    rates = set()
    for copy in range(20):
        new = tested.explore(tested.members[0], copy)
        assert new["beta2"] in {0.95, 0.99}
        rates.add(float(new.get("max_learning_rate[1]", 1)))
    assert min(rates) >= 1
    assert 1 < max(rates) <= 3


def test_copy_keeps_its_parents_draw_if_no_other_is_allowed() -> None:
    """T_warmup decides when pruning begins here, and that cannot change in mid-training."""
    tied = (
        Parameter(name="warmup_steps", distribution=Range(kind="int", low=1, high=50)),
        Parameter(
            name="prune_start_steps", fraction_of="warmup_steps", distribution=Constant(value=2.0)
        ),
        Parameter(name="target_sparsity", distribution=Constant(value=0.5)),
    )
    tested = PBT(facts("pbt", parameters=tied))
    tested.add(0, {"warmup_steps": 20})
    assert {tested.explore(tested.members[0], copy)["warmup_steps"] for copy in range(9)} == {20}
