"""Evidence of a home: which trials count, and what is said of the others."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.tuner.knowledge.searched import searched
from tests.tuner.simulated_search import SPACE
from tuner.errors import TunerError
from tuner.home.home import Home
from tuner.journal.journal import read_entries, read_search
from tuner.knowledge.atlas import read_atlas
from tuner.knowledge.library import collect
from tuner.knowledge.settings import NAMES, SETTINGS


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Home:
    folder = tmp_path_factory.mktemp("library")
    home = Home.of(folder / "home")
    searched(home, "a-1", folder)
    sgd = SPACE.replace("hyperparameters:", "hyperparameters:\n  optimizer: sgd")
    searched(home, "sgd-1", folder, sgd.replace("  λ: {log: [1e-3, 1]}\n", ""), trials=4)
    (home.root / "searches" / "empty-1").mkdir()
    damaged = home.root / "searches" / "damaged-1"
    damaged.mkdir()
    (damaged / "journal.jsonl").write_text('{"format": 1}\n', encoding="utf-8")
    return home


def test_trials_of_a_search_are_its_finished_and_diverged_ones(home: Home) -> None:
    library = collect(home, ["a-1"])
    (source,) = library.sources
    search = read_search(home.search("a-1"))
    assert search is not None
    trials = [t for t in search.board.trials.values() if t.has_finished or t.has_diverged]
    assert source.trials == len(library.evidence) == len(trials)
    assert source.digest == read_entries(home.search("a-1"))[-1].digest
    assert [t.has_diverged for t in trials] == np.isinf(library.evidence.losses).tolist()
    first, h = library.evidence.points[0], trials[0].spec.hyperparameters
    values = dict(
        zip(NAMES, (s.value(x) for s, x in zip(SETTINGS, first, strict=True)), strict=True)
    )
    assert values["max_learning_rate"] == pytest.approx(h.max_learning_rate)
    assert values["batch_size"] == pytest.approx(h.batch_size * 32)
    assert values["warmup_steps"] == pytest.approx(h.warmup_steps / h.total_steps)
    assert values["beta2"] == pytest.approx(h.beta2)
    # B rounds budgets, and seeds and settings make no cell
    assert len(set(library.evidence.cells)) == 1


def test_everything_that_is_left_out_is_named(home: Home) -> None:
    library = collect(home)
    assert [source.name for source in library.sources] == ["a-1", "atlas"]
    said = "\n".join(library.left_out)
    assert "sgd-1 was left out: of 8 trials, its optimizer is sgd, not adamw" in said
    assert "empty-1 was left out: it has not begun" in said
    assert "damaged-1 was left out: " in said
    assert collect(home, besides="a-1").sources == (read_atlas().source,)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["a-2"], r"there is no search a-2 to learn from in .*; did you mean a-1\?"),
        (["sgd-1"], "sgd-1 was left out: .*; name another search"),
    ],
)
def test_named_search_without_evidence_is_refused(
    home: Home, names: list[str], message: str
) -> None:
    with pytest.raises(TunerError, match=message):
        collect(home, names)


def test_atlas_is_what_its_card_says() -> None:
    atlas = read_atlas()
    assert atlas.card["trials"] == len(atlas.evidence) >= 100
    assert set(atlas.card["texts"]) == {"code", "prose", "markup"}
    assert len(set(atlas.evidence.texts)) == 3
    weights = np.exp(atlas.evidence.sizes[:, 0]).round()
    assert [weights.min(), weights.max()] == atlas.card["weights"]
    assert np.isfinite(atlas.evidence.points).all()
    finite = atlas.evidence.losses[np.isfinite(atlas.evidence.losses)]
    assert 2.0 < finite.min() < finite.max() < 12.0


def test_missing_atlas_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(
        TunerError, match=r"the atlas .*a.parquet cannot be read; install tuner again"
    ):
        read_atlas(tmp_path / "a.parquet")
