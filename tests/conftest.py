"""What several tests share: a small corpus and specifications made for it."""

from __future__ import annotations

import gc
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, settings
from typing_extensions import override
from xdist.scheduler import LoadScopeScheduling

from model.corpus.pairs import PairDataset
from model.spec.architecture import Architecture
from model.spec.data import DataConfig, TokenizerConfig
from model.spec.derive import derive
from model.spec.trial import InitFrom, TrialSpec

gc.disable()  # until `pytest_collection_finish`

# `ray_session` sets this, but not if a test has imported Ray before. Ray's workers would have the
# lowest priority, and hardly train while other tests keep the cores busy.
os.environ.setdefault("RAY_worker_niceness", "0")

# Of all properties; a test says only how many examples it needs. Time limits would fail on busy
# machines. Fixtures of these tests may live as long as all examples. In CI a failure is one of the
# change, not of the dice; elsewhere each run draws new examples.
settings.register_profile(
    "tests",
    deadline=None,
    derandomize=bool(os.environ.get("CI")),
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
settings.load_profile("tests")

VOCAB = 288
MakeSpec = Callable[..., TrialSpec]


_LONGEST = (
    "test_resume.py",
    "test_search_replay.py", "test_faults.py", "test_mlflow.py", "test_take_away.py",
    "test_cluster.py", "test_docs.py", "test_bench_rehearsal.py", "test_examples.py",
    "test_jobs.py", "test_shared_machine.py", "test_worker_faults.py", "test_stack.py",
    "test_serve.py", "test_transfer.py", "test_finetune.py", "test_seq2seq.py",
    "test_budgets.py", "test_spaces.py",
    # none of these starts Ray
    "test_law.py", "test_compiled.py", "test_engine.py", "test_projection_faults.py",
    "test_sampler.py", "test_engine_faults.py", "test_pairs.py", "test_prepare.py",
    "test_warm_start.py", "test_tokenizer.py",
)  # fmt: skip


# files that share the search of `e2e.conftest.searched`: one worker has them, and trains it once
_ONE_SEARCH = {
    "test_search_replay.py", "test_faults.py", "test_mlflow.py", "test_take_away.py",
    "test_record_mutations.py", "test_hostile_home.py", "test_strange_home.py",
}  # fmt: skip


class _FileScheduling(LoadScopeScheduling):  # type: ignore[misc]
    """Gives each worker whole files, as `--dist loadfile` does."""

    @override
    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.split("::", 1)[0]
        return "one search" if Path(file).name in _ONE_SEARCH else file


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> LoadScopeScheduling:
    """For `-n`: see `_FileScheduling`."""
    return _FileScheduling(config, log)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """For `-n auto`: two more than the cores, which searches leave idle as they start and end.

    Each costs 15 s of a core, in which it imports all tests, and a gigabyte.
    """
    return 2 + (len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with what takes longest, so that several workers are done at one time."""

    def place(item: pytest.Item) -> tuple[int, bool]:
        name = item.path.name
        longest = _LONGEST.index(name) if name in _LONGEST else len(_LONGEST)
        return longest, "e2e" not in item.path.parts

    items.sort(key=place)


def pytest_collection_finish() -> None:
    """Let the collector of cycles pass over all that collection made, which lives to the end.

    Otherwise it walks over a million objects, of mlflow, ray, torch and the tests, again and again.
    """
    gc.collect()
    gc.freeze()
    gc.enable()


def pytest_unconfigure() -> None:
    """Let the end of the interpreter free all: some libraries complain of what is left."""
    gc.unfreeze()


def last_state(folder: Path, trial_id: str = "0") -> Path:
    """The checkpoint of a trial's last report."""
    return max((folder / trial_id).glob("*.safetensors"))


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    """As the engine sets it: the bits of a sum depend on how it is split over threads."""
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _wide_pipes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Output is captured as into a pipe, whatever the width of the terminal under pytest."""
    monkeypatch.delenv("COLUMNS", raising=False)


@pytest.fixture(scope="session")
def tokens() -> tuple[np.ndarray, np.ndarray]:
    """Training and validation tokens with something to learn: noisy counting."""
    rng = np.random.default_rng(0)
    count = np.arange(6000) % 61 + np.where(rng.random(6000) < 0.2, rng.integers(200, size=6000), 0)
    return count[:5000].astype(np.uint16), count[5000:].astype(np.uint16)


@pytest.fixture(scope="session")
def pairs() -> tuple[PairDataset, PairDataset]:
    """Training and validation pairs: a few numbers, and the same ones backwards."""
    rng = np.random.default_rng(0)
    texts, ends = [], []
    for length in rng.integers(1, 9, size=400):
        source = rng.integers(1, 20, size=length)
        for text in (source, source[::-1]):
            texts += [*text.tolist(), 0]
            ends.append(len(texts))
    ids, middle = np.array(texts, np.uint16), ends[599]
    later = np.array(ends[600:]) - middle
    return PairDataset(ids[:middle], np.array(ends[:600]), 0), PairDataset(ids[middle:], later, 0)


@pytest.fixture(scope="session")
def make_spec(
    tokens: tuple[np.ndarray, np.ndarray], pairs: tuple[PairDataset, PairDataset]
) -> MakeSpec:
    """A specification for `tokens`, or `pairs` if it has an encoder, as one likes it."""

    def make(
        *,
        seed: int = 0,
        steps: int = 12,
        reports: int = 3,
        micro_batch: int = 2,
        model: Mapping[str, Any] | None = None,
        init_from: InitFrom | None = None,
        **hyperparameters: Any,
    ) -> TrialSpec:
        sizes = {"d_model": 16, "n_layers": 1, "n_heads": 2, "context_length": 8, "d_ff": 32}
        architecture = Architecture(vocab_size=VOCAB, **{**sizes, **(model or {})})
        length = architecture.context_length
        has_encoder = architecture.n_encoder_layers > 0
        train_sequences = len(pairs[0]) if has_encoder else (len(tokens[0]) - 1) // length
        h = derive(
            {"batch_size": 4, "max_learning_rate": 0.01, "total_steps": steps, **hyperparameters},
            train_sequences=train_sequences,
            context_length=length,
        )
        return TrialSpec(
            hyperparameters=h,
            architecture=architecture,
            data=DataConfig(files=("made-up.jsonl",), pairs=has_encoder),
            tokenizer=TokenizerConfig(vocab_size=VOCAB),
            data_fingerprint="data",
            tokenizer_fingerprint="tokenizer",
            train_sequences=train_sequences,
            validation_sequences=9,
            micro_batch=micro_batch,
            report_tokens=-(-h.total_steps * h.batch_size * length // reports),
            seed=seed,
            init_from=init_from,
        )

    return make
