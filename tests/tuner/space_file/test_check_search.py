"""Mistakes in what a file says of the search itself. `▲` marks the place a message points at."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.tuner.space_file.test_load import mistakes_of, split_marks
from tuner.space.settings import Confirm
from tuner.space.space import SearchSpace
from tuner.space_file.load import load_space
from tuner.space_file.overrides import Override

HEAD = """\
budget: {tokens: 90000, reports: 9}
hyperparameters:
  α_max: {log: [1e-4, 1e-1]}
  α_min: {fraction_of: α_max, uniform: [0, 0.5]}
  optimizer: {choice: [adamw, momentum]}
  γ: {uniform: [0.5, 0.99], when: {optimizer: momentum}}
  B: {choice: [8, 16]}
  p_drop: 0.1
"""
SMALL = "budget: {tokens: 90000}\nhyperparameters: {B: {grid: [8, 16]}, λ: {choice: [0, 1]}}\n"
PAIRS = "data: {source: python-docstrings, pairs: true}\nmodel: {n_encoder_layers: 1}\n"


def one(prior: str, entry: str = "log: [1e-4, 1e-2]", key: str = "α_max") -> str:
    return f"budget: {{tokens: 90000}}\nhyperparameters: {{{key}: {{{entry}, prior: {prior}}}}}\n"


def tried(points: str) -> str:
    return HEAD + f"search: {{try_first: {points}}}"


MISTAKES = {
    # search
    "sampler": (
        HEAD + "search: {sampler: ▲tpee}",
        "must be tpe, gp, cmaes, qmc, random, grid or n",
    ),
    "asha": (HEAD + "search: {asha: ▲park}", "search.asha must be stop or promote, got park"),
    "reduction": (HEAD + "search: {reduction_factor: ▲1}", "must be at least 2, got 1"),
    "order": (HEAD + "search: {order: ▲time}", "search.order must be auto, tokens or arrival, got"),
    "max_tokens": (
        HEAD + "search: {max_tokens: ▲0}",
        "search.max_tokens must be at least 1, got 0",
    ),
    "patience": (HEAD + "search: {patience: ▲-1}", "search.patience must be at least 1, got -1"),
    "a lone source": (
        HEAD + "search: {learn_from: ▲small}",
        "search.learn_from must be auto, off or a list of searches and tables, got small; write [s",
    ),
    "no source": (HEAD + "search: {learn_from: ▲[]}", "search.learn_from must name its sources"),
    "source with a password": (
        HEAD + "search: {learn_from: ▲['mysql://me:secret@host/db']}",
        "search.learn_from must have no password or options, got mysql:…; the library of",
    ),
    "a population that learns": (
        HEAD + "search: {scheduler: pbt, sampler: random, learn_from: ▲auto}",
        "search.learn_from: pbt trains its first trials as one population; set it to off",
    ),
    "several objectives that learn": (
        HEAD
        + "search: {scheduler: none, learn_from: ▲[small]}\n"
        + "objective: [{metric: val_loss}, {metric: flops}]",
        "sources know one loss, and this search has several objectives; set it to off",
    ),
    "no share": (
        HEAD + "search: {stop_when_left_below: ▲2}",
        "search.stop_when_left_below must be below 1, got 2",
    ),
    "odd share": (
        HEAD + "search: {stop_when_left_below: ▲little}",
        "search.stop_when_left_below must be a share, such as 0.002 or 0.2 %, got little",
    ),
    "left of a population": (
        HEAD + "search: {scheduler: pbt, sampler: random, stop_when_left_below: ▲1 %}",
        "search.stop_when_left_below: what is left to gain is not known of a population, which pbt "
        "trains; leave it out",
    ),
    "no time": (HEAD + "search: {max_seconds: ▲0s}", "search.max_seconds must be above 0, got 0"),
    "odd time": (
        HEAD + "search: {max_seconds: ▲2 weeks}",
        "search.max_seconds must be seconds, or a time such as 90s, 10m or 2h, got 2 weeks",
    ),
    "seed": (HEAD + "search: {seed: ▲-1}", "search.seed must be at least 0, got -1"),
    # try_first
    "no list": (tried("▲{B: 8}"), "search.try_first must be a list of points, for instance"),
    "no point": (tried("[▲8]"), "a point must be a mapping from names to values, for instance"),
    "empty point": (tried("[▲{}]"), "a point must be a mapping from names to values"),
    "no single value": (
        tried("[{B: ▲[8, 16]}]"),
        "search.try_first: B must be one value, got [8, 16",
    ),
    "no value": (tried("[{B:▲}]"), "search.try_first: B must be one value, got nothing"),
    "unknown name": (tried("[{B: 8}, {▲a_max: 1e-3}]"), "a_max is unknown; did you mean α_max?"),
    "not in the space": (
        tried("[{▲λ: 1}]"),
        "search.try_first: λ is not set in this space; the space sets α_max, α_min, optimizer, B,",
    ),
    "size, not in the space": (
        tried("[{▲n_layers: 1}]"),
        "n_layers is unknown; the space sets α_max, α_min, opt",
    ),
    "out of range": (tried("[{α_max: ▲1}]"), "α_max must be in its range, 0.0001 … 0.1, got 1"),
    "share out of range": (
        tried("[{α_min: ▲0.6}]"),
        "α_min must be in its range, 0 … 0.5 × α_max, got 0.6",
    ),
    "not a choice": (tried("[{B: ▲12}]"), "B must be one of 8, 16, got 12"),
    "text for number": (
        tried("[{α_max: ▲high}]"),
        "α_max must be in its range, 0.0001 … 0.1, got hi",
    ),
    "constant": (tried("[{▲p_drop: 0.1}]"), "p_drop is constant: 0.1; remove it"),
    "one by two names": (tried("[{B: 8, ▲batch_size: 16}]"), "batch_size and B are the same; keep"),
    "not drawn there": (
        tried("[{▲γ: 0.9}]"),
        "γ is drawn only with optimizer momentum; add this to the point, or remove γ",
    ),
    "more points than trials": (
        HEAD + "search:\n  try_first: [{B: 8}, {B: 16}]\n  trials: ▲2",
        "try_first has 2 points, and trial 0 has the defaults, but search.trials is 2; raise it",
    ),
    "more points than trials, without defaults": (
        HEAD + "search:\n  try_first: [{B: 8}, {B: 16}]\n  defaults: off\n  trials: ▲1",
        "try_first has 2 points, but search.trials is 1; raise it",
    ),
    "defaults": (HEAD + "search: {defaults: ▲none}", "search.defaults must be"),
    "flops": (
        "budget: {flops: ▲many}",
        "budget.flops must be a number of operations, such as 2e15, 2P or 300T, got many",
    ),
    "no flops": ("budget: {flops: ▲0G}", "budget.flops must be at least 1, got 0"),
    # schedulers
    "asha, one report": (
        "budget: {tokens: 9000, reports: ▲1}",
        "budget.reports: asha compares unfinished trials, which needs at least 2 reports, got 1; or",
    ),
    "bohb, one report": (
        "budget: {tokens: 9000, reports: ▲1}\nsearch: {scheduler: bohb}",
        "bohb compares unfinished",
    ),
    "bohb and gp": (
        HEAD + "search: {scheduler: bohb, sampler: ▲gp}",
        "search.sampler: bohb is a scheduler with its own sampler, tpe, got gp; change one of ",
    ),
    "small population": (
        HEAD + "search: {scheduler: pbt, trials: ▲3}",
        "search.trials, the size of the population, must be at least 4 with pbt, got 3",
    ),
    "rare exchange": (
        HEAD + "search: {scheduler: pb2, perturb_reports: ▲9}",
        "search.perturb_reports must be below budget.reports, 9, otherwise pb2 never copies a trial, got 9",
    ),
    "rare exchange by default": (
        "budget: {tokens: 90, reports: 2}\nhyperparameters: {λ: {log: [0.1, 1]}}\n"
        "search: ▲{scheduler: pbt}",
        "search.perturb_reports must be below budget.reports, 2, otherwise pbt never copies a trial, got 2",
    ),
    "nothing to explore": (
        SMALL.replace("λ: {choice: [0, 1]}", "optimizer: {choice: [adamw, lion]}")
        + "search: {scheduler: ▲pbt}",
        "search.scheduler: pbt has no parameter that it can change during training; search a hyp",
    ),
    # samplers
    "range in a grid": (
        HEAD + "search: {sampler: ▲grid}",
        "search.sampler: with sampler grid every searched parameter must be a choice, a grid or a "
        "short int range, got α_max log-uniform 0.0001 … 0.1",
    ),
    "large grid": (
        SMALL + "search: {sampler: grid, trials: ▲3}",
        "the grid has 4 points, but search.trials is 3; raise it, or give fewer",
    ),
    "prior in a grid": (
        SMALL.replace("[0, 1]", "[0, 1], ▲prior: {centre: 1}") + "search: {sampler: grid}",
        "λ: a prior has no effect with sampler grid, which tries every value",
    ),
    # objectives
    "metric": (
        HEAD + "objective: {metric: ▲loss}",
        "sparsity, parameters or flops, got loss; did you",
    ),
    "wrong end": (
        HEAD + "objective: {metric: perplexity, mode: ▲max}",
        "objective.mode must be min for perplexity, of which less is better, got max; leave it out",
    ),
    "wrong end of accuracy": (
        PAIRS + HEAD + "objective: {metric: token_accuracy, mode: ▲min}",
        "must be max for token_accuracy, of which more is better, got min; leave it out",
    ),
    "bleu without pairs": (
        HEAD + "objective: {metric: ▲bleu}",
        "bleu is available only with data of pairs (data.pairs: true); choose another metric",
    ),
    "bleu before the end": (
        PAIRS + HEAD + "objective: {metric: bleu}\nsearch: {scheduler: ▲median}",
        "search.scheduler: median compares unfinished trials, for which bleu has no meaning; set it ",
    ),
    "exact answers of texts": (
        HEAD + "objective: {metric: ▲exact_match}",
        "exact_match is available only with examples whose answers are learned (data.examples: tr",
    ),
    "choices without questions": (
        HEAD + "objective: {metric: ▲acc_norm}",
        "acc_norm is available only with questions; give data.multiple_choice a .jsonl file, or c",
    ),
    "no questions": (
        "data: {multiple_choice: ▲none.jsonl}\n" + HEAD,
        "data.multiple_choice: there is no file ",
    ),
    "sparsity of some": (
        HEAD + "  s_final: {choice: [0, 0.5]}\nobjective: {metric: ▲sparsity}",
        "sparsity is available only for trials that prune; give s_final values above 0 only, without w",
    ),
    "no objectives": (
        HEAD + "objective: ▲[]",
        "objective must be a mapping, or a list of mappings, got",
    ),
    "objective as text": (
        HEAD + "objective: ▲val_loss",
        "objective must be a mapping with the keys metric, mode, got val_loss",
    ),
    "objective of a list as text": (
        HEAD + "objective: [▲val_loss]",
        "objective must be a mapping with the keys metric, mode, got val_loss",
    ),
    "second objective": (
        HEAD + "objective: [{metric: val_loss}, {metric: ▲bleu}]\nsearch: {scheduler: none}",
        "bleu is available only with data of pairs",
    ),
    "twice the same": (
        HEAD + "objective: [{metric: val_loss}, ▲{metric: val_loss}]",
        "val_loss is given twice as an objective; keep one",
    ),
    "several and a scheduler": (
        HEAD + "objective: [{metric: val_loss}, {metric: parameters}]\nsearch: ▲{trials: 5}",
        "no scheduler can compare unfinished trials by several objectives; set it to none, got as",
    ),
    "several and gp": (
        HEAD + "objective: [{metric: val_loss}, {metric: parameters}]\n"
        "search: {scheduler: none, sampler: ▲gp}",
        "search.sampler must be tpe, random, qmc, nsga2 or grid for several objectives, got gp",
    ),
    # confirm
    "confirm": (
        HEAD + "confirm: ▲no",
        "confirm must be off, or a mapping with the keys top, seeds,",
    ),
    "one seed": (HEAD + "confirm: {seeds: ▲1}", "confirm.seeds must be at least 2, got 1"),
    "confirm, key": (
        HEAD + "confirm: {▲tops: 1}",
        "unknown key in confirm: tops; did you mean top?",
    ),
    # priors
    "prior": (one("▲1e-3"), "α_max: prior takes a mapping, for instance {centre: 1e-3, confidence"),
    "prior, key": (
        one("{centre: 1e-3, ▲weight: 1}"),
        "α_max: unknown key in prior: weight; valid n",
    ),
    "no centre": (
        one("▲{confidence: low}"),
        "α_max: a prior needs one centre, for instance {centr",
    ),
    "two centres": (one("▲{centre: 1e-3, center: 1e-3}"), "got both centre and center"),
    "centre outside": (
        one("{centre: ▲1}"),
        "α_max: the centre of its prior must be in [0.0001, 0.01], got 1",
    ),
    "center outside": (
        one("{center: ▲1}"),
        "α_max: the centre of its prior must be in [0.0001, 0.0",
    ),
    "centre as text": (one("{centre: ▲low}"), "must be in [0.0001, 0.01], got low"),
    "centre as list": (one("{centre: ▲[1e-3]}"), "must be in [0.0001, 0.01], got [0.001]"),
    "broken centre": (
        one("{centre: ▲1.5}", "int: [1, 4]", "ΔT_prune"),
        "the centre of its prior must be a whole number in [1, 4], got 1.5",
    ),
    "centre of a choice": (
        one("{centre: ▲12}", "choice: [8, 16]", "B"),
        "the centre of its prior must be 8 or 16, got 12",
    ),
    "centre of names": (
        one("{centre: ▲adam}", "choice: [adamw, lion]", "optimizer"),
        "must be adamw or lion, got adam; did you mean adamw?",
    ),
    "centre of a share": (
        one("{centre: ▲1e-3}", "fraction_of: α_max, uniform: [0.1, 0.5]", "α_min"),
        "α_min: the centre of its prior must be in [0.1, 0.5], got 0.001",
    ),
    "confidence": (
        one("{centre: 1e-3, confidence: ▲sure}"),
        "α_max: the confidence of a prior must be low, medium, high or a number between 0 and 1, got",
    ),
    "full confidence": (one("{centre: 1e-3, confidence: ▲1}"), "a number between 0 and 1, got 1"),
    "prior of a constant": (
        one("▲{centre: 1e-3}", "value: 1e-3"),
        "α_max: a constant needs no prior",
    ),
    "prior of a grid": (
        one("▲{centre: 8}", "grid: [8, 16]", "B"),
        "B: a prior has no effect on a grid, which tries every value; use choice",
    ),
}


@pytest.mark.parametrize("case", MISTAKES)
def test_search_checks_report_mistake(tmp_path: Path, case: str) -> None:
    marked, message = MISTAKES[case]
    text, places = split_marks(marked)
    found = mistakes_of(tmp_path / "space.yaml", text)
    assert [(m.line, m.column) for m in found] == places, found
    assert message in found[0].message


def load(tmp_path: Path, text: str, *options: str) -> SearchSpace:
    (tmp_path / "space.yaml").write_text(text, encoding="utf-8")
    return load_space(tmp_path / "space.yaml", [Override.parse(option) for option in options])


@pytest.mark.parametrize(
    ("text", "flops"),
    [
        ("4e11", 4 * 10**11), ("400G", 4 * 10**11), ("400_000_000_000", 4 * 10**11),
        ("2.5P", 25 * 10**14), ("300 TFLOPs", 3 * 10**14), ("1e3 MFLOP", 10**9), ("1E", 10**18),
    ],
)  # fmt: skip
def test_load_reads_a_number_of_operations(tmp_path: Path, text: str, flops: int) -> None:
    assert load(tmp_path, f"budget: {{flops: {text}}}").budget.flops == flops


@pytest.mark.parametrize(
    ("text", "seconds"), [("90", 90), ("90s", 90), ("10m", 600), ("1.5h", 5400), ("2 d", 172_800)]
)
def test_search_reads_time(tmp_path: Path, text: str, seconds: float) -> None:
    assert load(tmp_path, HEAD + f"search: {{max_seconds: {text}}}").search.max_seconds == seconds
    assert load(tmp_path, HEAD, f"search.max_seconds={text}").search.max_seconds == seconds


def test_confirm_may_be_off(tmp_path: Path) -> None:
    assert load(tmp_path, HEAD + "confirm: off").confirm == Confirm(top=0)
    assert load(tmp_path, HEAD, "confirm=off").confirm.top == 0
    assert load(tmp_path, HEAD + "confirm: false").confirm.top == 0
    assert load(tmp_path, HEAD + "confirm: {top: 2}").confirm == Confirm(top=2, seeds=3)
    assert load(tmp_path, HEAD).confirm == Confirm()


def test_objectives_have_a_good_direction(tmp_path: Path) -> None:
    one = load(tmp_path, PAIRS + HEAD + "objective: {metric: token_accuracy}")
    assert [(o.metric, o.mode) for o in one.objectives] == [("token_accuracy", "max")]
    several = load(
        tmp_path,
        PAIRS + HEAD + "  s_final: {uniform: [0.1, 0.8]}\n"
        "search: {scheduler: none, sampler: nsga2}\n"
        "objective: [{metric: perplexity}, {metric: bleu, mode: max}, {metric: sparsity}]",
    )
    assert several.objective == several.objectives[0]
    assert [o.mode for o in several.objectives] == ["min", "max", "max"]
    assert [o.metric for o in several.objectives] == ["perplexity", "bleu", "sparsity"]


@pytest.mark.parametrize(
    "text",
    [
        *(HEAD + f"search: {{sampler: {s}}}" for s in ("gp", "cmaes", "qmc", "random", "nsga2")),
        *(HEAD + f"search: {{scheduler: {s}}}" for s in ("hyperband", "bohb", "median", "pbt", "pb2")),
        HEAD + "objective: {metric: parameters}\nsearch: {scheduler: none}",
        "budget: {tokens: 9000, reports: 1}\nsearch: {scheduler: none}",
        SMALL + "search: {sampler: grid, trials: 4}",
        tried("[{α_max: 3e-3, batch_size: 8.0}, {γ: 0.9, optimizer: momentum}, {B: 16}]"),
        "budget: {tokens: 90}\nhyperparameters: {τ: {choice: [off, 1], prior: {centre: off}}}\n"
        "search: {try_first: [{τ: off}]}",
        one("{center: 1e-3, confidence: 0.9}"),
        one("{centre: 0.2}", "fraction_of: α_max, uniform: [0.1, 0.5]", "α_min"),
    ],
)  # fmt: skip
def test_search_checks_accept(tmp_path: Path, text: str) -> None:
    """What looks like a mistake and is none."""
    assert load(tmp_path, text).searched is not None


def test_sources_are_names_and_absolute_paths(tmp_path: Path) -> None:
    path = tmp_path / "space.yaml"
    url = "sqlite:////data/study.db"
    path.write_text(f"{HEAD}search: {{learn_from: [small, tables/a.csv, '{url}', small]}}")
    assert load_space(path).search.learn_from == ("small", str(tmp_path / "tables/a.csv"), url)
    off = load_space(path, [Override.parse("search.learn_from=off")])
    assert off.search.learn_from == "off"
    path.write_text(f"{HEAD}search: {{learn_from: off}}")
    assert load_space(path).search.learn_from == "off"
