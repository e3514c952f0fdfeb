"""The coordinate check: its family of models, its verdicts, its command."""

from __future__ import annotations

import json
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from model.corpus.prepare import prepare
from model.spec.architecture import Architecture
from model.spec.data import DataConfig, TokenizerConfig
from tests.tuner.report.drawn import drawn
from tuner.cli import main
from tuner.commands.transfer import proxy as transfer
from tuner.space.data_facts import DataFacts
from tuner.space.settings import Budget, Proxy
from tuner.space.space import SearchSpace
from tuner.transfer.coordinate_check import SizeVerdict, _verdict
from tuner.transfer.family import family


def sizes(target: Architecture, proxy: Proxy) -> dict[str, list[tuple[int, int]]]:
    found: dict[str, list[tuple[int, int]]] = {}
    for member in family(target, proxy):
        a = member.architecture
        found.setdefault(member.axis, []).append((a.d_model, a.n_layers))
        assert a.target_architecture == target
        assert member.size == (a.d_model if member.axis == "width" else a.n_layers)
    return found


def test_family_lies_between_proxy_and_target() -> None:
    target = Architecture(vocab_size=50, d_model=512, n_layers=16, n_heads=32)
    assert sizes(target, Proxy(width=1 / 8, depth=1 / 4)) == {
        "width": [(64, 4), (128, 4), (256, 4), (512, 4)],
        "depth": [(64, 2), (64, 4), (64, 8), (64, 16)],
    }
    wide = sizes(target, Proxy(width=1 / 2))
    assert wide["width"] == [(64, 16), (128, 16), (256, 16), (512, 16)]


def test_sizes_that_cannot_be_divided_are_left_out() -> None:
    target = Architecture(vocab_size=50, d_model=96, n_layers=6, n_heads=3, norm_placement="post")
    assert sizes(target, Proxy(width=1 / 3)) == {
        "width": [(12, 6), (24, 6), (32, 6), (48, 6), (96, 6)], "depth": [(32, 6)],
    }  # fmt: skip


def verdict(exponent: float, noise: float = 0.0, at: tuple[int, ...] = (16, 32, 64)) -> SizeVerdict:
    """Of sizes ∝ width^exponent, with seeds that differ."""
    models = [
        {"stream": [[size**exponent * (1 + noise * (-1) ** seed * k)] * 2 for seed in range(4)]}
        for k, size in enumerate(at)
    ]
    return _verdict("width", "stream", (1, 10), models, at)


def test_verdict_follows_slope_and_bounds() -> None:
    assert verdict(0.0).is_kept
    assert verdict(0.09).is_kept
    assert not verdict(0.12).is_kept
    assert not verdict(-0.12).is_kept
    found = verdict(1.0)
    assert (found.slope, found.half_width) == pytest.approx((1.0, 0.0), abs=1e-9)
    assert found.ratios == pytest.approx((0.25, 0.5))
    assert verdict(0.12, noise=0.1).is_kept, "the interval over the seeds reaches 0.1"
    assert not verdict(0.09, at=(1, 2, 2**30)).is_kept, "a slope may be small, and the ratio not"


def test_verdict_of_a_diverged_model_is_bad() -> None:
    models = [{"stream": [[1.0, 1.0]] * 2}, {"stream": [[1.0, math.inf]] * 2}]
    assert not _verdict("width", "stream", (1, 10), models, (16, 32)).is_kept


TEXT = "".join(f"{n} and then {n * n % 97}, which is {n % 7} of seven.\n" for n in range(3000))


@pytest.fixture
def searched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """What the command reads of a search with a proxy."""
    (tmp_path / "text.txt").write_text(TEXT, encoding="utf-8")
    space = SearchSpace(
        data=DataConfig(files=(str(tmp_path / "text.txt"),)),
        tokenizer=TokenizerConfig(vocab_size=270), budget=Budget(tokens=9000),
        proxy=Proxy(width=1 / 4, depth=1 / 2),
    )  # fmt: skip
    corpus = prepare(space.data, space.tokenizer, tmp_path / "corpora")
    spec = space.spec({}, DataFacts.of(corpus), 0)
    result = SimpleNamespace(name="lm-1", space=space, best=SimpleNamespace(spec=spec, draw={}))
    monkeypatch.setattr(transfer, "load_search", lambda name, home: result)
    home = SimpleNamespace(corpora=tmp_path / "corpora")
    monkeypatch.setattr(transfer, "recorded_home", lambda options: home)
    monkeypatch.chdir(tmp_path)
    return result


@pytest.mark.slow
def test_command_prints_verdicts_and_a_picture(
    searched: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: Any
) -> None:
    monkeypatch.setattr("tuner.transfer.coordinate_check.STEPS", (1, 10))
    status = main(["transfer", "lm-1", "--check", "--seeds", "2", "--json"])
    value = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert status == (0 if value["kept"] else 1)
    axes = [(v["axis"], v["quantity"]) for v in value["verdicts"]]
    assert len(axes) == len(set(axes)) == 10
    assert all(v["ratios"][0] > 0 for v in value["verdicts"])
    figures = drawn(tmp_path / "lm-1-coordinates.html")
    assert list(figures) == [f"{axis}-{quantity}" for axis, quantity in axes]
    lines = [trace["name"] for trace in figures["width-stream"]["data"] if "name" in trace]
    assert lines == ["update 1", "update 10"]


@pytest.mark.parametrize(
    ("changes", "options", "message"),
    [
        ({}, [], "say what to do: --check"),
        ({"proxy": None}, ["--check"], "the trials of lm-1 are no proxies; give its space a"),
        ({}, ["--check", "-o", "no/where.html"], "there is no folder no"),
        ({}, ["--check", "--verify", "-o", "a.html"], "-o names one picture"),
        ({}, ["--check", "-o", "a.png"], "name it a.html"),
        ({}, ["--check", "--rate-factor", "2"], "--rate-factor is for --train"),
        ({}, ["--verify", "--device", "cuda"], "--verify trains on CPUs"),
        ({"proxy": Proxy(width=1 / 2)}, ["--verify"], "only 2 sizes from the proxy to the target"),
    ],
)
def test_command_refuses_in_one_sentence(
    searched: Any, capsys: pytest.CaptureFixture[str],
    changes: dict[str, Any], options: list[str], message: str,
) -> None:  # fmt: skip
    searched.space = searched.space.model_copy(update=changes)
    assert main(["transfer", "lm-1", *options]) == 2
    assert message in capsys.readouterr().err
