"""Answers: suggestions in a space, their sources, and predictions that are judged later."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from tests.tuner.knowledge.planted import best, planted
from tests.tuner.knowledge.searched import searched
from tests.tuner.simulated_search import FACTS, SPACE, space_of
from tuner.errors import TunerError
from tuner.home.home import Home
from tuner.knowledge.answer import answer_for, answer_for_space
from tuner.knowledge.basin import TargetCell
from tuner.knowledge.candidates import Candidates
from tuner.knowledge.library import Library
from tuner.knowledge.proposals import propose_from
from tuner.knowledge.record import promises
from tuner.scaling.prediction import write_prediction
from tuner.space.proposals import SourceUsed

EVIDENCE = planted()
LIBRARY = Library(
    ((SourceUsed("planted", "table", "d", len(EVIDENCE)), EVIDENCE),), ("b was left out",)
)
SEARCH = "trials: 4"


def test_suggestion_is_near_the_planted_best() -> None:
    answer = answer_for(LIBRARY, TargetCell(3e5, 5e5, "code"))
    found = {s.setting.name: s.estimate for s in answer.settings}
    truth = best(3e5, 5e5)
    assert math.log(found["max_learning_rate"].value) == pytest.approx(truth[0], abs=0.4)
    assert found["batch_size"].low < math.exp(truth[1]) < found["batch_size"].high
    assert answer.loss is not None
    assert answer.loss.low < 1.6 + 4 * 3e5**-0.2 + 30 * 5e5**-0.3 < answer.loss.high
    assert 0 <= answer.regret_of_best <= answer.regret.value < 0.02
    assert answer.left_out == ("b was left out",)
    assert not answer.warnings


def test_far_target_is_said_and_has_wide_intervals() -> None:
    near, far = (answer_for(LIBRARY, TargetCell(*size)) for size in ((3e5, 5e5), (4e8, 8e9)))
    (text,) = [w for w in far.warnings if "far from all sources" in w]
    assert "400,000,000 weights (the sources have 10,000 to 1,000,000) and" in text
    assert "the Step Law (Li et al. 2025, arXiv:2503.04715) was fitted to such models" in text
    width = [
        math.log(a.settings[0].estimate.high / a.settings[0].estimate.low) for a in (near, far)
    ]
    assert width[1] > width[0]


def test_without_sources_the_law_answers_and_says_so() -> None:
    answer = answer_for(Library(), TargetCell(4e8, 8e9))
    assert answer.loss is None
    assert answer.warnings[0].startswith("no source has trials, so the answer is that of published")
    assert answer.settings[0].estimate.value == pytest.approx(
        1.79 * 4e8**-0.713 * 8e9**0.307, rel=0.15
    )
    with pytest.raises(TunerError, match="nothing can be predicted without trials"):
        answer.prediction()


def test_draw_is_in_the_space_and_the_best_of_many(tmp_path: Path) -> None:
    space = space_of(tmp_path, SEARCH)
    answer = answer_for_space(LIBRARY, space, FACTS)
    assert all(p.contains(answer.draw[p.label]) for p in space.searched)
    assert [s.setting.name for s in answer.settings] == [
        "max_learning_rate", "batch_size", "weight_decay", "warmup_steps"
    ]  # fmt: skip
    # no point of a random thousand is expected to be better
    from tuner.knowledge.suggestion import Advisor

    candidates = Candidates(space, FACTS)
    bowls = Advisor(LIBRARY, candidates.target).bowls
    rng = np.random.default_rng(0)
    draws = [{p.label: p.at(float(rng.random())) for p in space.searched} for _ in range(300)]
    points = np.array([candidates.places(draw) for draw in [answer.draw, *draws]])
    expected = bowls.regrets(points).mean(0)
    assert expected[0] <= expected.min() + 1e-3


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("optimizer: lion", "its optimizer is lion, not adamw"),
        ("schedule: constant", "its schedule is not cosine or linear over the whole training"),
    ],
)
def test_space_that_nothing_is_known_about_is_refused(
    tmp_path: Path, text: str, message: str
) -> None:
    changed = f"hyperparameters:\n  {text}\n  p_drop: {{uniform: [0, 0.2]}}\n"
    space = space_of(tmp_path, SEARCH, changed + SPACE[SPACE.index("model:") :])
    with pytest.raises(TunerError, match=message):
        answer_for_space(LIBRARY, space, FACTS)
    proposals = propose_from(LIBRARY, space, FACTS)
    assert not proposals
    assert message in proposals.sentence


def test_space_without_known_parameters_is_refused(tmp_path: Path) -> None:
    text = "hyperparameters:\n  p_drop: {uniform: [0, 0.2]}\n" + SPACE[SPACE.index("model:") :]
    with pytest.raises(TunerError, match="searches nothing that is known about; known are"):
        answer_for_space(LIBRARY, space_of(tmp_path, SEARCH, text), FACTS)


def test_proposals_are_distinct_and_begin_with_the_best(tmp_path: Path) -> None:
    text = SPACE.replace("27_000", "270_000")
    space = space_of(tmp_path, SEARCH, text)
    proposals = propose_from(LIBRARY, space, FACTS)
    assert len({tuple(draw.values()) for draw in proposals.draws}) == 3
    assert proposals.draws[0] == proposals.centre
    assert proposals.sources == LIBRARY.sources
    assert proposals.sentence == "learned from planted (288 trials): 3 configurations proposed"


def test_far_from_all_sources_the_law_proposes(tmp_path: Path) -> None:
    space = space_of(tmp_path, SEARCH)  # 27,000 tokens; the sources have 100,000 and more
    text = SPACE.replace("27_000", "2_700")
    space = space_of(tmp_path, SEARCH, text)
    proposals = propose_from(LIBRARY, space, FACTS)
    assert (len(proposals.draws), proposals.sources) == (1, ())
    assert "its first trials are those of published laws" in proposals.sentence


def test_prediction_is_judged_by_the_first_later_search_of_its_size(tmp_path: Path) -> None:
    home = Home.of(tmp_path / "home")
    space = space_of(tmp_path, SEARCH)
    answer = answer_for_space(LIBRARY, space, FACTS)
    write_prediction(answer.prediction(), home)
    (promise,) = promises(home)
    assert (promise.search, promise.holds) == (None, {})
    searched(home, "later-1", tmp_path)
    (promise,) = promises(home)
    assert promise.search == "later-1"
    assert set(promise.measured) == {"loss", "α_max", "B", "λ", "T_warmup"}
    loss = promise.prediction.values["loss"]
    assert promise.holds["loss"] == (loss.low <= promise.measured["loss"] <= loss.high)
    assert promise.as_json["values"]["loss"]["measured"] == promise.measured["loss"]
    (home.root / "predictions" / "planted-1.json").unlink()
    late = answer.prediction().model_copy(
        update={"date": promise.prediction.date.replace(year=2999)}
    )
    write_prediction(late, home)
    (promise,) = promises(home)
    assert promise.search is None, "a search that had begun before proves nothing"
