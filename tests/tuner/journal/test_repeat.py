from __future__ import annotations

from pathlib import Path

import pytest

from tests.tuner.simulated_search import FACTS, SPACE, Simulation, outcomes, space_of
from tuner.conductor.clock import CLOCKS
from tuner.conductor.conductor import Conductor
from tuner.driver.training import environment_changes
from tuner.errors import TunerError
from tuner.journal.edit import changes, check_edit, edited, kept_overrides
from tuner.journal.events import Reported, SearchEdited, SessionBegun
from tuner.journal.repeat import repeat, restored_decisions
from tuner.space.space import SearchSpace
from tuner.space_file.load import read_space
from tuner.space_file.overrides import Override
from tuner.space_file.yaml_file import YamlFile


@pytest.fixture
def space(tmp_path: Path) -> SearchSpace:
    return space_of(tmp_path, "trials: 12")


def test_edited_changes_what_is_free(space: SearchSpace) -> None:
    overrides = [Override.parse(o) for o in ("search.trials=40", "confirm.top=5")]
    changed = edited(space, overrides, "lm-1")
    assert (changed.search.trials, changed.confirm.top) == (40, 5)
    check_edit(space, changed, "lm-1")


def test_storage_changes_no_trial(space: SearchSpace) -> None:
    """It may be added to a search that has begun, changed and left out."""
    changed = edited(space, [Override.parse("engine.storage=s3://lm/searches/")], "lm-1")
    assert changed.engine.storage == "s3://lm/searches"
    assert changes(space, changed) == ["engine.storage"]
    check_edit(space, changed, "lm-1")
    check_edit(changed, space, "lm-1")
    defaults = space.defaults()
    assert space.spec(defaults, FACTS, 1).hash == changed.spec(defaults, FACTS, 1).hash
    assert SearchSpace.model_validate_json(changed.model_dump_json()) == changed


@pytest.mark.parametrize(
    ("override", "reason"),
    [
        ("budget.tokens=9", "allowed are more search.trials"),
        ("search.sampler=random", "allowed are"),
        ("hyperparameters.λ=0.1", "in the file"),
        ("search.trials=none", "search.trials"),
        ("search.trials=[", "not a valid value"),
    ],
)
def test_edited_refuses_the_rest(space: SearchSpace, override: str, reason: str) -> None:
    with pytest.raises(TunerError, match=reason):
        edited(space, [Override.parse(override)], "lm-1")


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("trials: 12", "trials: 11", "fewer search.trials"),
        ("27_000", "54_000", "another budget"),
        ("context_length: 32", "context_length: 16", "another model.context_length"),
        ("  λ: {log: [1e-3, 1]}\n", "", "other entries of hyperparameters"),
        ("λ: {log: [1e-3, 1]}", "λ: 0.1", "another hyperparameters.weight_decay"),
        ("λ: {log: [1e-3, 1]}", "λ: {uniform: [1e-3, 1]}", "another kind of range"),
        ("seed: 3", "seed: 4", "another search.seed"),
        ("seed: 3", "seed: 3, asha: stop", "another search.asha"),
        ("reports: 9", "reports: 9, validation_tokens: 64", "another budget"),
    ],
)
def test_check_edit_names_what_cannot_change(
    tmp_path: Path, old: str, new: str, reason: str
) -> None:
    text = SPACE.replace("%s", "trials: 12")
    before, after = (space_of(tmp_path, "", t) for t in (text, text.replace(old, new)))
    assert before != after
    with pytest.raises(TunerError, match=reason) as error:
        check_edit(before, after, "lm-1")
    assert "allowed changes are" in str(error.value)


@pytest.mark.parametrize("is_live", [False, True])
@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("[1e-4, 1e-1]", "[1e-3, 3e-1]"),
        ("{choice: [8, 16]}", "{choice: [8, 16, 32]}"),
        ("trials: 12", "trials: 30, max_tokens: 1_000_000"),
    ],
)
def test_search_goes_on_with_allowed_edit(
    tmp_path: Path, old: str, new: str, is_live: bool
) -> None:
    """In its session or in the next; and a journal with the edit in it repeats like any other."""
    text = SPACE.replace("%s", "trials: 12")
    space, other = (space_of(tmp_path, "", t) for t in (text, text.replace(old, new)))
    check_edit(space, other, "lm-1")
    simulation = Simulation(Conductor(space, FACTS, 3))
    for _ in range(20):
        simulation.step()
    simulation.conductor.edit(other)
    simulation.note(SearchEdited(other, "", is_live))
    if not is_live:
        simulation.note(SessionBegun({}, 3, in_order=True))
    simulation._fill()
    ended = simulation.run()
    assert len(ended.board.searched) == other.search.trials
    for length in (len(simulation.events), len(simulation.events) - 30):  # killed then, and resumed
        events = simulation.events[:length]
        conductor = Conductor(space, FACTS, 3, restored_decisions(events, lambda _: ()))
        repeat(conductor, events, "lm-1")
        again = Simulation(conductor, events).run()
        assert outcomes(again) == outcomes(ended)


def test_repeat_keeps_the_clock_of_a_journal(tmp_path: Path) -> None:
    """With another one, jobs go to other lanes, and reports come in another order."""
    text = SPACE.replace("%s", "trials: 12, sampler: random").replace(
        "context_length: 32", "context_length: 32, d_model: {choice: [16, 32, 64]}"
    )
    space, orders = space_of(tmp_path, "", text), []
    for clock in CLOCKS:
        simulation = Simulation(Conductor(space, FACTS, 3, clock=clock))
        simulation.run()
        restored = restored_decisions(simulation.events, lambda _: ())
        conductor = Conductor(space, FACTS, 3, restored, clock=clock)
        repeat(conductor, simulation.events[: len(simulation.events) // 2], "lm-1")
        expected = next(
            event for event in simulation.events[len(simulation.events) // 2 :]
            if isinstance(event, Reported)
        )  # fmt: skip
        assert conductor.expected == (expected.number, expected.report.step)
        orders.append([e.number for e in simulation.events if isinstance(e, Reported)])
    assert orders[0] != orders[1]


@pytest.mark.parametrize(
    ("now", "old", "new", "kept"),
    [
        ([], "", "", ["search.seed=3", "hyperparameters.alpha_max=0.5", "search.trials=40"]),
        (["search.trials=12"], "", "", ["search.seed=3", "hyperparameters.alpha_max=0.5"]),
        (["hyperparameters.α_max=0.1"], "", "", ["search.seed=3", "search.trials=40"]),
        (["search={trials: 9}"], "", "", ["hyperparameters.alpha_max=0.5"]),
        # what the new file changes
        ([], "trials: 12", "trials: 50", ["search.seed=3", "hyperparameters.alpha_max=0.5"]),
        ([], "[1e-4, 1e-1]", "[1e-4, 1]", ["search.seed=3", "search.trials=40"]),
    ],
)
def test_kept_overrides_are_those_of_earlier_sessions(
    tmp_path: Path, now: list[str], old: str, new: str, kept: list[str]
) -> None:
    """Seed and rate are those of the first session, and trials of a resumed one."""
    text = SPACE.replace("%s", "trials: 12, max_seconds: 10m")
    told = [Override.parse(t) for t in ("search.seed=3", "hyperparameters.alpha_max=0.5")]
    path = tmp_path / "space.yaml"
    path.write_text(text)
    space, recorded_text = read_space(path, told)
    recorded = edited(space, [Override.parse("search.trials=40")], "lm-1")
    path.write_text(text.replace(old, new) if old else text)
    overrides = [Override.parse(each) for each in now]
    found = kept_overrides(YamlFile(path), recorded_text, recorded, overrides)
    assert [f"{'.'.join(o.path)}={o.text}" for o in found] == kept


def test_kept_overrides_make_the_recorded_space(tmp_path: Path) -> None:
    path = tmp_path / "space.yaml"
    path.write_text(SPACE.replace("%s", "trials: 12"))
    told = [Override.parse(t) for t in ("search.seed=3", "hyperparameters.alpha_max=0.5")]
    recorded, text = read_space(path, told)
    again, text_again = read_space(path, (), lambda file: kept_overrides(file, text, recorded, ()))
    assert again == recorded
    assert text_again == text
    assert kept_overrides(YamlFile(path), recorded.model_dump_json(), recorded, ()) == []


def test_kept_overrides_keep_what_is_off(tmp_path: Path) -> None:
    """Nothing can be set in `confirm=off`, so it is kept as the key that it sets."""
    path = tmp_path / "space.yaml"
    path.write_text(SPACE.replace("%s", "trials: 12"))
    recorded, text = read_space(path, [Override.parse("confirm=off")])
    again, _ = read_space(path, (), lambda file: kept_overrides(file, text, recorded, ()))
    assert again == recorded
    same = [Override.parse("confirm=off")]
    told_again, _ = read_space(path, same, lambda f: kept_overrides(f, text, recorded, same))
    assert told_again == recorded


def test_repeat_detects_different_decisions(space: SearchSpace) -> None:
    simulation = Simulation(Conductor(space, FACTS, 3))
    simulation.run()
    events = [e for e in simulation.events if not (isinstance(e, Reported) and e.number == 2)]
    conductor = Conductor(space, FACTS, 3, restored_decisions(events, lambda _: ()))
    with pytest.raises(TunerError, match="decides otherwise"):
        repeat(conductor, events, "lm-1")


def test_environment_changes_names_what_differs() -> None:
    before = {"device": "cpu", "torch": "2.13.0", "dtype": "float32"}
    assert environment_changes(before, before) == ""
    assert environment_changes(before, {**before, "torch": "2.13.1"}) == "torch 2.13.0 → 2.13.1"
