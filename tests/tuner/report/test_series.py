"""Numbers of the plots, against numbers computed by hand."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from model.engine.report import Report, Status
from tests.tuner.results.finished_search import SPACE, result_in
from tests.tuner.results.random_trials import FACTS, load
from tuner.conductor.outcome import Outcome
from tuner.conductor.trial import Trial
from tuner.report.axes import axes_of, place
from tuner.report.parallel import Scale, groups, lines
from tuner.report.picture import log_axis, round_values
from tuner.report.progress import best_so_far
from tuner.report.scale.compute import caption, compute_of, figure
from tuner.report.series import Curve, Ending, ReportData, RungCounts, is_wide, window
from tuner.report.shares import shares_of
from tuner.report.slices import points_of
from tuner.results.importance import importance
from tuner.results.result import SearchResult
from tuner.space.space import SearchSpace
from tuner.space_file.load import load_space

PARAMETERS = """hyperparameters:
  α_max: {log: [1e-4, 1e-2]}
  β1:    {uniform: [0.8, 0.9]}
  B:     {choice: [16, 8]}
"""


# Of B = 8, so 128 tokens an update: the first updates that complete 4,000, 8,000, … tokens.
TOKENS = (32 * 128, 63 * 128, 94 * 128, 125 * 128, 157 * 128)


@pytest.fixture(scope="module")
def space(tmp_path_factory: pytest.TempPathFactory) -> SearchSpace:
    return load(tmp_path_factory.mktemp("space"), PARAMETERS)


def make_trial(
    space: SearchSpace, number: int, values: Sequence[float], times: Sequence[int] = (), **more: Any
) -> Trial:
    """A trial of B = 8 that reports every 4,000 tokens; NaN: it diverged."""
    draw = more.pop("draw", {"max_learning_rate": 1e-3, "beta1": 0.85, "batch_size": 8})
    spec = space.spec(draw, FACTS, 0)
    reports = []
    for step, value in zip(spec.report_steps, values, strict=False):
        status = Status.FINISHED if step == spec.report_steps[-1] else Status.TRAINING
        status = Status.DIVERGED if math.isnan(value) else status
        tokens = step * spec.tokens_per_step
        reports.append(Report(str(number), status, step, tokens, value, value, 1.0, 0.01))
    ended = reports[-1].status is not Status.TRAINING
    outcome = Outcome.parse(str(reports[-1].status)) if ended else Outcome.stopped(len(reports))
    given = {"draw": draw, "reports": reports, "times": list(times), "outcome": outcome}
    return Trial(number, spec, **(given | more))


def series(space: SearchSpace, *rows: Trial, **more: Any) -> ReportData:
    best = min(rows, key=lambda r: r.objective("val_loss"))
    return ReportData(
        SearchResult("s-1", space, "val_loss", [*rows], best, {}, "1", 9.0, 0.5, **more)
    )


def test_best_so_far_sums_the_tokens_of_all_trials_in_the_order_of_time(space: SearchSpace) -> None:
    """Only finished trials count: 2.0 of trial 1 is of another budget than 4.0 of trial 0."""
    rows = (
        make_trial(space, 0, [5.0, 4.5, 4.3, 4.1, 4.0], [1_000, 3_000, 4_000, 5_000, 6_000]),
        make_trial(space, 1, [2.0, 3.0], [2_000, 9_000]),
        make_trial(space, 2, [6.0, 5.0, 4.0, 3.8, 3.7], [7_000, 7_100, 7_200, 7_300, 8_000]),
    )
    best = series(space, *rows, started=500).best_so_far
    assert best is not None
    one, two, end = TOKENS[0], TOKENS[1], TOKENS[-1]
    assert [r.tokens for r in rows[1].reports] == [one, two]
    assert best.tokens == (end + one, 2 * end + one, 2 * end + two)
    assert best.seconds == (5.5, 7.5, 8.5)
    assert best.values == (4.0, 3.7, 3.7)
    assert best.trials == (0, 2, 2)


def test_best_so_far_excludes_reused_and_diverged_trials(space: SearchSpace) -> None:
    rows = (
        make_trial(space, 0, [5.0, math.nan], [1_000, 2_000]),
        make_trial(space, 1, [4.0] * 5, range(3_000, 8_000, 1_000)),
    )
    rows[1].reused = rows[1].reports
    best = series(space, *rows).best_so_far
    assert best is not None
    assert best.tokens == (TOKENS[1], TOKENS[1])  # the recorded one cost nothing
    assert best.values == (4.0, 4.0)
    untimed = series(space, make_trial(space, 0, [5.0, 4.9, 4.8, 4.7, 4.0])).best_so_far
    assert untimed is not None
    assert untimed.seconds is None
    nothing = make_trial(space, 0, [math.nan], [1])
    assert series(space, nothing).best_so_far is None


def test_curves_end_where_a_trial_diverged(space: SearchSpace) -> None:
    found = series(
        space, make_trial(space, 0, [5.0, 4.5, math.nan]), make_trial(space, 1, [4.0] * 5)
    ).curves
    assert found == [
        Curve(0, 3, Ending.DIVERGED, TOKENS[:2], (5.0, 4.5), (TOKENS[2], 4.5)),
        Curve(1, 5, Ending.FINISHED, TOKENS, (4.0,) * 5),
    ]


def test_curve_of_a_branch_begins_at_its_parent(tmp_path: Path) -> None:
    text = SPACE.replace("tied_embeddings: {choice: [true, false]}", "d_model: 16")
    result = result_in(tmp_path, "trials: 8, scheduler: pbt", text)
    found = ReportData(result)
    (child, *_) = [r for r in result.trials if r.parent is not None and not r.has_diverged]
    parent = next(r for r in result.trials if r.number == child.parent)
    curve = next(c for c in found.curves if c.number == child.number)
    assert curve.tokens[0] == child.tokens_before > 0
    at = next(r for r in parent.reports if r.tokens == child.tokens_before)
    assert curve.values[0] == at.val_loss
    assert len(curve.tokens) == len(child.reports) + 1
    assert found.level(child, child.reports[0]) > 1
    best = found.best_so_far
    assert best is not None
    assert best.tokens[-1] == result.tokens_spent


def test_rungs_count_trials_by_course(space: SearchSpace) -> None:
    unfinished = make_trial(space, 4, [5.0, 4.0], outcome=Outcome.failed("no memory"))
    found = series(
        space, make_trial(space, 0, [4.0] * 5), make_trial(space, 1, [5.0]),
        make_trial(space, 2, [5.0, 4.9, 4.8]),
        make_trial(space, 3, [5.0, math.nan]), unfinished,
    )  # fmt: skip
    assert found.rungs == [
        # level reached continued stopped diverged finished other
        RungCounts(1, 5, 4, 1, 0, 0, 0),
        RungCounts(2, 4, 2, 0, 1, 0, 1),
        RungCounts(3, 2, 1, 1, 0, 0, 0),
        RungCounts(4, 1, 1, 0, 0, 0, 0),
        RungCounts(5, 1, 0, 0, 0, 1, 0),
    ]


@pytest.mark.slow
def test_rungs_of_a_search_agree_with_its_outcomes(tmp_path: Path) -> None:
    result = result_in(tmp_path, "trials: 24")
    stopped = {r.level: r.stopped for r in ReportData(result).rungs}
    for level, count in stopped.items():
        stopped_trials = [r for r in result.trials if r.outcome == f"stopped at report {level}"]
        assert len(stopped_trials) == count
    assert sum(stopped.values()) >= 10


def test_window_excludes_bad_outliers_only() -> None:
    usual = [4.0, 4.1, 4.2, 4.3, 4.4, 4.5, 4.6, 4.7]
    assert window([*usual, 1e9]) == (4.0, 4.7)
    assert window([*usual, 0.1]) == (0.1, 4.7)  # a good outlier stays
    assert window([*usual, -50.0], sign=-1) == (4.0, 4.7)
    assert window([1.0, 100.0]) == (1.0, 100.0)  # too few to know what is usual
    assert window([5.0] * 9) == (5.0, 5.0)
    assert window([]) is None
    assert is_wide(1.0, 6.0)
    assert not is_wide(-1.0, 6.0)


def test_places_are_by_logarithm_and_by_order(space: SearchSpace) -> None:
    rate, beta, batch = space.searched
    assert place(rate, 1e-3) == pytest.approx(0.5)
    assert place(beta, 0.82) == pytest.approx(0.2)
    assert [place(batch, b) for b in (8, 16, 32)] == [0.0, 1.0, None]
    axes = axes_of(series(space, make_trial(space, 0, [4.0])))
    assert [a.title for a in axes] == ["α_max", "β1", "B"]
    assert [a.is_log for a in axes] == [True, False, False]
    assert [text for _, text in axes[0].ticks] == ["1e-4", "1e-3", "0.01"]
    assert [p for p, _ in axes[0].ticks] == pytest.approx([0.0, 0.5, 1.0])
    assert axes[2].values == ("8", "16")


def test_slices_mark_how_trials_ended(space: SearchSpace) -> None:
    rows = [
        make_trial(space, 0, [4.5] * 5), make_trial(space, 1, [5.0]),
        make_trial(space, 2, [math.nan]),
        make_trial(space, 3, [4.0] * 5), make_trial(space, 4, [4.2] * 5),
        make_trial(space, 5, [5.0], outcome=None),
    ]  # fmt: skip
    found = series(space, *rows)
    rate, _, batch = (points_of(found, p, 3) for p in space.searched)
    assert {point.number: point.mark for point in rate} == {
        0: "defaults", 1: "stopped", 2: "diverged", 3: "winner", 4: "finished", 5: "unfinished",
    }  # fmt: skip
    assert {p.x for p in rate} == {1e-3}
    assert rate[2].value is None
    assert len({p.x for p in batch}) == len(rows)  # with offsets, so that none hides another
    assert all(abs(p.x - 0.0) < 0.25 for p in batch)


def test_conditional_parameters_are_missing_on_lines_and_slices(tmp_path: Path) -> None:
    result = result_in(tmp_path, "trials: 24, sampler: random")
    found = ReportData(result)
    index = [axis.label for axis in axes_of(found)].index("momentum")
    have = {r.number for r in result.trials if r.draw["optimizer"] == "momentum"}
    assert 0 < len(have) < 24
    assert {line.number for line in lines(found) if line.places[index] is not None} == have
    momentum = result.space.searched[index]
    assert {point.number for point in points_of(found, momentum, None)} == have
    assert axes_of(found)[index].full_title == "γ (if optimizer: momentum)"


def test_groups_are_fifths_with_the_best_last(space: SearchSpace) -> None:
    losses = [4.0, 3.0, 2.0, 1.0, 9.0, 8.0, 7.0, 6.0, 5.0, 0.0]
    found = lines(
        series(space, *(make_trial(space, i, [loss] * 5) for i, loss in enumerate(losses)))
    )
    assert [[line.number for line in group] for group in groups(found, 1)] == [
        [4, 5], [6, 7], [8, 0], [1, 2], [3, 9],
    ]  # fmt: skip
    assert [line.number for line in groups(found, -1)[-1]] == [5, 4]
    assert groups([], 1) == []
    wide = Scale(1.0, 100.0, 1)
    assert wide.is_log
    assert wide.place(10.0) == pytest.approx(0.5)
    low = Scale(1.0, 3.0, 1)
    assert [low.place(v) for v in (1.0, 2.0, 99.0)] == [0.0, 0.5, 1.0]
    assert low.place(None) > 1
    assert Scale(1.0, 3.0, -1).place(None) < 0


def test_front_of_compute_is_what_nothing_beats_with_as_few_operations(tmp_path: Path) -> None:
    text = PARAMETERS + "model: {d_model: {choice: [16, 32]}}\n"
    (tmp_path / "space.yaml").write_text(
        "data: {source: python-stdlib}\ntokenizer: {vocab_size: 300}\n" + text
        + "budget: {tokens: 20000, reports: 5}\n"
    )  # fmt: skip
    sizes = load_space(tmp_path / "space.yaml")
    common = {"max_learning_rate": 1e-3, "beta1": 0.85, "batch_size": 8}
    small = make_trial(sizes, 0, [5.0, 4.0, 3.9, 3.8, 3.7], draw=common | {"d_model": 16})
    large = make_trial(sizes, 1, [4.5, 3.95, 3.6, math.nan], draw=common | {"d_model": 32})
    found = compute_of(series(sizes, small, large))
    assert found is not None
    assert [c.number for c in found.curves] == [0, 1]
    flops = {t.number: [t.flops(r.tokens) for r in t.reports] for t in (small, large)}
    assert flops[0][0] < flops[1][0] < flops[0][4]
    points = [
        (flops[n][i], v, n)
        for n, vs in enumerate(([5.0, 4.0, 3.9, 3.8, 3.7], [4.5, 3.95, 3.6]))
        for i, v in enumerate(vs)
    ]
    best = sorted(p for p in points if not any(q[0] <= p[0] and q[1] < p[1] for q in points))
    assert list(found.front) == best
    assert "It ends at trial 1" in caption(found, "val_loss")
    assert len(figure(found, "val_loss").data) == 3
    assert compute_of(series(sizes, small)) is None


def test_shares_equal_optunas(tmp_path: Path) -> None:
    result = result_in(tmp_path, "trials: 24, sampler: random, scheduler: none", SPACE)
    found = shares_of(ReportData(result))
    assert found.reason is None
    assert found.trials == 24
    assert found.budget == "27,000 tokens"
    assert found.bars[0].title == "α_max"  # the formula says so: a decade of it is worth 1.0
    for method in ("fanova", "ped-anova"):
        whole = [b.shares[method][0] for b in found.bars if "if" not in b.title]
        assert sum(whole) == pytest.approx(1.0)
        assert max(whole) == found.bars[0].shares[method][0] > 0.4


def test_ped_anova_equals_optunas(tmp_path: Path) -> None:
    import optuna
    from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances

    space = load(tmp_path, "hyperparameters:\n  β1: {uniform: [0, 0.9]}\n  β2: {uniform: [0, 0.9]}")
    draws = [{"beta1": (i % 7) / 8, "beta2": (i % 5) / 8} for i in range(20)]
    points = [(d, d["beta1"] + 0.01 * d["beta2"]) for d in draws]
    (found,) = importance(space, points, "ped-anova")
    study = optuna.create_study()
    span = optuna.distributions.FloatDistribution(0.0, 0.9)
    study.add_trials(
        [
            optuna.trial.create_trial(
                params=dict(d), distributions=dict.fromkeys(d, span), value=value
            )
            for d, value in points
        ]
    )
    theirs = get_param_importances(
        study, evaluator=PedAnovaImportanceEvaluator(target_quantile=0.25)
    )
    ours = {s.parameter.label: s for s in found.shares}
    assert ours["beta1"].mean == max(s.mean for s in found.shares)
    for label, share in theirs.items():  # one sample of the trials, ours is over eight
        assert abs(ours[label].mean - share) < 3 * ours[label].deviation + 0.02


@pytest.mark.parametrize(("trials", "text"), [(6, "6 of the trials"), (1, "1 of the trials")])
def test_shares_report_too_few_trials(tmp_path: Path, trials: int, text: str) -> None:
    found = shares_of(ReportData(result_in(tmp_path, f"trials: {trials}, scheduler: none")))
    assert found.bars == ()
    assert found.reason is not None
    assert found.reason.startswith("Too few trials")
    assert text in found.reason


def test_front_pairs_the_first_objective_with_each_other(tmp_path: Path) -> None:
    text = SPACE.replace(
        "confirm: {top: 2, seeds: 3}",
        "objective: [{metric: val_loss}, {metric: parameters}, {metric: perplexity}]",
    ).replace("tied_embeddings: {choice: [true, false]}", "d_model: {choice: [16, 32]}")
    result = result_in(tmp_path, "trials: 12, scheduler: none, sampler: random", text)
    first, second = ReportData(result).fronts
    assert first.metrics == ("val_loss", "parameters")
    assert second.metrics == ("val_loss", "perplexity")
    best = min(first.points, key=lambda p: p[1])
    assert best[3]
    for number, x, y, is_on in first.points:
        trial = next(r for r in result.trials if r.number == number)
        assert (x, y) == (trial.objective("val_loss"), trial.objective("parameters"))
        beaten = any(p[1] < x and p[2] < y for p in first.points)
        assert not (is_on and beaten)


def test_divergence_has_level_of_missed_report(space: SearchSpace) -> None:
    late = make_trial(space, 0, [5.0, 4.0])
    late.reports[-1] = replace(late.reports[-1], step=late.reports[-1].step - 3)
    assert series(space, late).reached(late) == 2  # it diverged on its way to report 2


@pytest.mark.parametrize(
    ("low", "high", "values"),
    [
        (0.9e-4, 0.11, [1e-4, 1e-3, 1e-2, 1e-1]),
        (4.8e5, 2.1e7, [5e5, 1e6, 2e6, 5e6, 1e7, 2e7]),
        (0.88, 1.85, [1.0, 1.2, 1.4, 1.6, 1.8]),
        (13.8, 20.2, [14, 16, 18, 20]),
    ],
)
def test_ticks_are_round_and_not_few(low: float, high: float, values: list[float]) -> None:
    assert round_values(low, high) == values


def test_log_axis_leaves_out_what_has_no_logarithm() -> None:
    assert log_axis([0.0, 1.0, 100.0], "x")["range"] == pytest.approx([-0.1, 2.1])
    assert "range" not in log_axis([0.0], "x")


@pytest.mark.parametrize(("metric", "sign"), [("val_loss", 1), ("token_accuracy", -1)])
def test_labels_stand_where_no_line_is(space: SearchSpace, metric: str, sign: int) -> None:
    """The best value on its good side, the defaults on their bad side."""
    rows = [make_trial(space, 0, [5.0] * 5), make_trial(space, 1, [5.0 - sign] * 5)]
    for row in rows:
        row.reports = [replace(r, token_accuracy=r.val_loss) for r in row.reports]
    found = series(space, *rows)
    found.metric, found.sign = metric, sign
    (picture,) = best_so_far(found)
    low, high = picture.figure.layout.yaxis.range
    defaults, best = picture.figure.layout.annotations
    assert (defaults.y, best.y) == (5.0, 5.0 - sign)
    assert (defaults.yanchor, best.yanchor) == (
        ("bottom", "top") if sign > 0 else ("top", "bottom")
    )
    assert low < min(defaults.y, best.y) - 0.1
    assert high > max(defaults.y, best.y) + 0.1
