"""From a proxy to its target: verified, trained, replayed, exported."""

from __future__ import annotations

import pytest

from tests.e2e.conftest import Workplace, make_workplace
from tests.tuner.report.drawn import drawn

pytestmark = pytest.mark.slow

SPACE = """
name: small
data: {files: [text.txt]}
tokenizer: {vocab_size: 270}
model: {d_model: 64, n_layers: 1, n_heads: 8, context_length: 16}
proxy: {width: 1/8, tokens: 1/4}
hyperparameters: {α_max: {log: [1e-3, 3e-2]}, B: 4}
budget: {tokens: 6_000, reports: 2}
search: {trials: 2, sampler: random, scheduler: none}
confirm: off
"""


def add_proxy(place: Workplace) -> None:
    """A text, and a space with a proxy for it."""
    lines = (f"{n} and then {n * n % 97}, which is {n % 7} of seven.\n" for n in range(3000))
    (place.folder / "text.txt").write_text("".join(lines), encoding="utf-8")
    (place.folder / "proxy.yaml").write_text(SPACE, encoding="utf-8")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Workplace:
    place = make_workplace(tmp_path_factory.mktemp("transfer"))
    add_proxy(place)
    return place


def test_target_is_verified_trained_replayed_and_exported(place: Workplace) -> None:
    searched = place.tuner("search", "--space", "proxy.yaml", "--quiet", "--json")
    assert searched.status == 0, searched.err
    verified = place.tuner("transfer", "small-1", "--verify", "--json")
    value = verified.json
    assert verified.status == (1 if value["verdict"] == "not transferable" else 0), verified.err
    assert "60 trials" in verified.err
    assert "at its speed or less" in verified.err
    assert list(drawn(place.folder / "small-1-rates.html")) == ["scaled", "standard"]
    sizes = [(sweep["parametrization"], sweep["size"]) for sweep in value["sweeps"]]
    assert sizes == [
        (kind, f"d_model {d}") for kind in ("scaled", "standard") for d in (8, 16, 32)
    ]  # fmt: skip
    # the trial of the search itself, at its own rate and seed, is one of the sweep
    (proxy,) = [sweep for sweep in value["sweeps"] if sweep["size"] == "d_model 8"][:1]
    best = place.tuner("show", "--search", "small-1", "--json").json
    losses = {trial["trial"]: trial["metrics"]["val_loss"] for trial in best["trials"]}
    assert proxy["losses"]["1"][0] == pytest.approx(
        losses[searched.json["best_trial"]], rel=1e-3
    )  # fmt: skip
    again = place.tuner("transfer", "small-1", "--verify", "--json", "-o", "again.html").json
    assert again | {"picture": ""} == value | {"picture": ""}  # nothing is trained twice
    trained = place.tuner("transfer", "small-1", "--train", "--json")
    assert trained.status == 0, trained.err
    is_moving = value["factor"] != 1
    assert (f"--rate-factor {value['factor']:.3g} would correct it" in trained.err) == is_moving
    assert trained.json["target"] == "small-1-target"
    assert trained.json["hyperparameters"]["max_learning_rate"] == pytest.approx(
        searched.json["hyperparameters"]["max_learning_rate"]
    )
    assert trained.json["architecture"]["d_model"] == 64
    replayed = place.tuner("replay", "--search", "small-1-target")
    assert "bit-exact" in replayed.out
    exported = place.tuner("export", "--search", "small-1-target", "-o", "exported")
    assert exported.status == 0, exported.err
