"""What a search starts from: found in a record made by hand, and checked against a space."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from model.checkpoints.warm_start import read_start
from model.engine.engine import Engine
from model.tokenizer.tokenizer import Tokenizer
from tests.conftest import VOCAB, MakeSpec, last_state
from tests.tuner.tracking.recorded import SPACE, RecordedSearch
from tuner.errors import RecordError, TunerError
from tuner.home.home import Home
from tuner.space.data_facts import DataFacts
from tuner.space.space import SearchSpace
from tuner.space_file.load import load_space
from tuner.tracking.artifacts import bring_start
from tuner.tracking.record import Record
from tuner.tracking.tags import START_FOLDER
from tuner.trained.find_start import WarmStart
from tuner.trained.warm_start import warm_started

Tokens = tuple[np.ndarray, np.ndarray]
SIZES = "{d_model: 16, n_layers: 2, n_heads: 2, context_length: 8, d_ff: 32}"


def named(name: str) -> SearchSpace:
    return SPACE.model_copy(update={"name": name})


@pytest.fixture(scope="module")
def home(
    tmp_path_factory: pytest.TempPathFactory,
    tokens: Tokens,
    make_spec: MakeSpec,
    tokenizer: Tokenizer,
) -> Home:
    """Two searches of the space lm and one of another; trial 1 is the best of each."""
    home = Home.at(tmp_path_factory.mktemp("home"))
    folder = home.root / "states"
    made = make_spec(model={"n_layers": 2}, steps=6, seed=3)
    spec = made.model_copy(update={"tokenizer_fingerprint": tokenizer.fingerprint})
    *_, last = Engine(*tokens, checkpoint_dir=folder).run([spec])
    (file,) = tokenizer.save(folder, "huggingface")
    for experiment, search in (("lm", "lm-1"), ("lm", "second"), ("else", "lm-3")):
        shutil.copytree(folder, home.search(search) / "checkpoints")
        recorded = RecordedSearch(home, search, space=named(experiment))
        recorded.trial(0, spec.model_copy(update={"seed": 4}), last, outcome="finished")
        recorded.trial(1, spec, last, outcome="finished")
        recorded.mlflow.runs.attach(file, None)
        recorded.finish(best=1, kept=[1])
    RecordedSearch(home, "lm-4", space=named("lm")).finish("failed")
    return home


Load = Callable[..., SearchSpace]


@pytest.fixture
def load(tmp_path: Path) -> Load:
    def make(init_from: str, model: str = SIZES, rest: str = "") -> SearchSpace:
        text = f"init_from: {init_from}\nmodel: {model}\nbudget: {{tokens: 999}}\n{rest}"
        (tmp_path / "space.yaml").write_text(text, encoding="utf-8")
        return load_space(tmp_path / "space.yaml")

    return make


def started(space: SearchSpace, home: Home) -> tuple[SearchSpace, WarmStart]:
    space, start = warm_started(space, home)
    assert start is not None
    return space, start


@pytest.mark.slow
def test_cold_space_stays_as_it_is(home: Home) -> None:
    space = SearchSpace()
    assert warm_started(space, home) == (space, None)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "search"), [("lm", "second"), ("lm-1", "lm-1"), ("else", "lm-3"), ("lm-3", "lm-3")]
)
def test_newest_search_of_a_name_or_a_space(home: Home, load: Load, name: str, search: str) -> None:
    """One without a best trial is passed over."""
    _, start = started(load(f"{{search: {name}}}"), home)
    assert start.description.startswith(f"trial 1 of {search} (run ")


def test_start_brings_its_tokenizer(home: Home, load: Load, tokenizer: Tokenizer) -> None:
    space, start = started(load("{search: lm}"), home)
    assert space.tokenizer.file is not None
    assert Tokenizer.from_file(space.tokenizer.file).fingerprint == tokenizer.fingerprint
    facts = DataFacts(VOCAB, 5000, 500, "data", "tokenizer", init_from=start.init_from)
    assert space.spec({}, facts, 0).init_from == start.init_from


def test_start_of_a_run_is_that_of_its_search(home: Home, load: Load) -> None:
    record = Record(home.tracking_uri)
    first, best = record.trials(record.search("lm-1"))
    _, start = started(load(f"{{run: '{best.run_id[:8]}', optimizer_state: true}}"), home)
    assert start.init_from.optimizer_steps == 6
    with pytest.raises(RecordError, match=f"only the best .* use run {best.run_id[:8]}$"):
        started(load(f"{{run: '{first.run_id}'}}"), home)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("{search: lm-4}",), r"the search lm-4 \(failed\) has no best trial; let it finish"),
        (
            ("{search: nothing}",),
            "no search called nothing is recorded in .*; run that search first, or name one of: "
            "lm-4, lm-3, second, lm-1$",
        ),
        (
            ("{search: lm}", SIZES.replace("d_ff: 32", "d_ff: 64")),
            r"ffn.w1.weight has the shape \(64, 16\) in a model of this space and has the shape "
            r"\(32, 16\) in trial 1 of second .*; set model: \{d_ff: 32\}, as in the source$",
        ),
        (
            ("{search: lm}", SIZES.replace("n_layers: 2", "n_layers: {choice: [2, 1]}")),
            "layers.1.attn.q_proj.weight is missing in a model .*n_layers: 2}, as in the source$",
        ),
        (
            ("{search: lm, optimizer_state: true}", SIZES, "hyperparameters: {optimizer: muon}"),
            "which is adamw for trial 1 .* may draw muon; set optimizer: adamw, or leave",
        ),
    ],
)
def test_source_that_does_not_fit_is_refused(
    home: Home, load: Load, arguments: tuple[str, ...], message: str
) -> None:
    with pytest.raises(TunerError, match=message):
        started(load(*arguments), home)


def test_no_home_is_no_search(tmp_path: Path, load: Load) -> None:
    """Looking makes nothing, neither a folder nor a store in one."""
    with pytest.raises(RecordError, match=r"no search called lm is recorded in .*/absent; run "):
        started(load("{search: lm}"), Home.of(tmp_path / "absent"))
    assert not (tmp_path / "absent").exists()
    (tmp_path / "empty").mkdir()
    with pytest.raises(RecordError, match=r"no run 12345678 is recorded in .*/empty; run a search"):
        started(load("{run: '12345678'}"), Home.of(tmp_path / "empty"))
    assert not list((tmp_path / "empty").iterdir())


def test_missing_source_names_the_space_that_makes_it(tmp_path: Path, load: Load) -> None:
    with pytest.raises(RecordError, match=r"run .tuner search --space lm. first"):
        started(load("{search: lm}"), Home.of(tmp_path / "absent"))


def test_checkpoint_takes_a_tokenizer_that_is_its_own(
    home: Home, load: Load, tokenizer: Tokenizer, tmp_path: Path
) -> None:
    source = last_state(home.root / "states")
    at = f"{{checkpoint: {source}}}"
    with pytest.raises(TunerError, match=r"does not hold its tokenizer; give tokenizer: \{file: …"):
        started(load(at), home)
    tokenizer.save(tmp_path / "own", "gpt2")
    _, start = started(load(at, rest="tokenizer: {file: own}"), home)
    assert start.description == str(source)
    Tokenizer(tokenizer.vocab, tokenizer.merges[:-1], ["<|endoftext|>"]).save(tmp_path / "other")
    with pytest.raises(TunerError, match=r"another tokenizer .* give tokenizer: \{file: …\}, the"):
        started(load(at, rest="tokenizer: {file: other}"), home)
    (tmp_path / "bad.safetensors").write_bytes(b"no such format")
    with pytest.raises(TunerError, match=r"init_from: .*bad.safetensors is damaged or no safetens"):
        started(load("{checkpoint: bad.safetensors}"), home)


def test_start_is_brought_back_from_the_record(home: Home, load: Load, tmp_path: Path) -> None:
    _, start = started(load("{search: lm}"), home)
    recorded = RecordedSearch(home, "tuned-1", space=named("tuned"), start=start.description)
    record = Record(home.tracking_uri)
    search = record.search("tuned-1")
    new = Home(tmp_path, home.tracking_uri)
    with pytest.raises(RecordError, match=r"trial 1 of second \(run .*\), from which .* are gone"):
        bring_start(record, search, start.init_from, new)
    recorded.mlflow.runs.attach(start.keep(home), START_FOLDER)
    bring_start(record, search, start.init_from, new)
    assert read_start(new.starts, start.init_from).keys() == start.tensors.keys()
    recorded.finish()
