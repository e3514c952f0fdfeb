"""A LoRA search from end to end: search, record, resume, replay, text, exports."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from model.checkpoints import checkpoint
from model.checkpoints.warm_start import start_path
from model.exchange.pretrained import Pretrained
from model.network.lora import merge
from model.spec.architecture import adapter_shapes
from model.tokenizer.tokenizer import Tokenizer
from tests.e2e.command_process import Run
from tests.e2e.conftest import Workplace, journal_lines, make_workplace
from tests.model.exchange.test_pretrained import write
from tests.tuner.tracking.recorded import stored_spec
from tuner.home.home import Home
from tuner.journal.events import Reported, SessionEnded
from tuner.journal.journal import Journal, read_journal
from tuner.tracking.record import Record
from tuner.tracking.tags import CHECKPOINT_FILE, START_FOLDER

pytestmark = pytest.mark.slow

SPACE = """\
name: adapted
init_from: {huggingface: llama}
data: {files: texts, validation_fraction: 0.2}
model: {context_length: 16}
lora:
  rank: {choice: [2, 4]}
  targets: {choice: [all, [q_proj, v_proj]]}
  alpha: {log: [4, 32]}
  dropout: 0.05
hyperparameters:
  α_max: {log: [1e-3, 1e-1]}
  B: 4
budget: {tokens: 6000, reports: 3, validation_tokens: 1024}
search: {trials: 3, seed: 1}
confirm: off
"""


def add_pretrained(place: Workplace) -> None:
    """A small Llama, its weights small enough to learn from, and a space for it."""
    folder = place.folder / "llama"
    ids = {i: bytes([i]) for i in range(256)} | {256: b"<|endoftext|>"}
    folder.mkdir()
    Tokenizer(ids, [], ["<|endoftext|>"]).save(folder, "huggingface")
    write(folder, "llama", vocab_size=264, context_length=32)
    (place.folder / "adapted.yaml").write_text(SPACE, encoding="utf-8")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Workplace:
    place = make_workplace(tmp_path_factory.mktemp("lora"))
    add_pretrained(place)
    return place


@pytest.fixture(scope="module")
def searched(place: Workplace) -> Run:
    run = place.tuner("search", "--space", "adapted.yaml", "--workers", "1", "--json")
    assert run.status == 0, run.err
    return run


@pytest.fixture(scope="module")
def record(place: Workplace, searched: Run) -> Record:
    return Record(f"sqlite:///{place.home}/mlflow.db")


def test_search_learns_and_keeps_adapters_only(
    place: Workplace, searched: Run, record: Record
) -> None:
    search = record.search("adapted-1")
    best = record.best(search)
    spec = stored_spec(record, best)
    assert spec.architecture.lora_rank in (2, 4)
    assert best.parameters["lora_rank"] == str(spec.architecture.lora_rank)
    assert {"lora_alpha", "lora_scaling", "lora_targets"} <= set(best.parameters)
    artifacts = place.home / "artifacts"
    tensors, _ = checkpoint.read(artifacts / best.run_id / "artifacts" / CHECKPOINT_FILE)
    names = adapter_shapes(spec.architecture)
    assert {name for name in tensors if name.startswith("weights.")} == {
        f"weights.{name}" for name in names
    }
    assert not (artifacts / search.run_id / "artifacts" / START_FOLDER).exists()
    assert 0 < best.metrics["effective_update"] < 1 < best.metrics["adapter_norm"]
    (report,) = artifacts.rglob("report.html")
    assert ">effective_update<" in report.read_text(encoding="utf-8")
    events = read_journal(Home.at(place.home).search("adapted-1"))
    losses = [event.report.val_loss for event in events if isinstance(event, Reported)]
    assert best.metrics["val_loss"] == min(losses) < losses[0]


def test_replay_proves_the_base_by_its_digest(
    place: Workplace, searched: Run, record: Record
) -> None:
    """Bit-exact; from the folder if the home has lost the base; refused for another base."""
    run = place.tuner("replay", "--search", "adapted-1", "--json")
    assert run.json["verdict"] == "bit-exact"
    init_from = stored_spec(record, record.best(record.search("adapted-1"))).init_from
    assert init_from is not None
    kept = start_path(Home.at(place.home).starts, init_from)
    kept.unlink()
    again = place.tuner("replay", "--search", "adapted-1", "--json")
    assert again.json["verdict"] == "bit-exact"
    assert kept.exists()
    whole = kept.read_bytes()
    folder = place.folder / "llama"
    kept.unlink()
    folder.rename(place.folder / "away")
    gone = place.tuner("replay", "--search", "adapted-1")
    kept.write_bytes(whole)
    (place.folder / "away").rename(folder)
    assert gone.status == 2
    assert "from which the trial started, are gone" in gone.err


def test_resumed_search_makes_the_same_decisions(place: Workplace, searched: Run) -> None:
    home = Home.at(place.home)
    events = read_journal(home.search("adapted-1"))
    journal = Journal.open(home.search("cut-1"))
    for event in (*events[: len(events) // 2], SessionEnded("interrupted")):
        journal.append(event)
    journal.close()
    text = SPACE.replace("name: adapted", "name: cut")
    (place.folder / "cut.yaml").write_text(text, encoding="utf-8")
    run = place.tuner("search", "--resume", "cut-1", "--json")
    assert run.status == 0, run.err
    assert run.json["best_trial"] == searched.json["best_trial"]
    assert [line for line in journal_lines(place.home, "cut-1") if "Reported" in line] == [
        line for line in journal_lines(place.home, "adapted-1") if "Reported" in line
    ]


def test_text_and_exports_have_the_adapters(
    place: Workplace, searched: Run, record: Record
) -> None:
    run = place.tuner("generate", "--prompt", "the quick", "--max-tokens", "4")
    assert run.status == 0, run.err
    for kind in ("hf", "peft"):
        run = place.tuner("export", "--search", "adapted-1", "--format", kind, "-o", kind)
        assert run.status == 0, run.err
    spec = stored_spec(record, record.best(record.search("adapted-1")))
    config = json.loads((place.folder / "peft" / "adapter_config.json").read_text(encoding="utf-8"))
    assert config["r"] == spec.architecture.lora_rank
    assert config["lora_alpha"] == spec.hyperparameters.lora_alpha
    adapters = load_file(place.folder / "peft" / "adapter_model.safetensors")
    assert sum(w.numel() for w in adapters.values()) == spec.architecture.num_trained
    from model.exchange.peft import load_adapters

    base = Pretrained.open(place.folder / "llama").weights()
    merged = merge(base, load_adapters(spec.architecture, adapters), spec.lora_scale)
    exported = Pretrained.open(place.folder / "hf").weights()
    assert all(torch.equal(exported[name], merged[name]) for name in base)
    assert any(not torch.equal(exported[name], base[name]) for name in base)


def test_what_has_no_meaning_for_adapters_is_refused(place: Workplace, searched: Run) -> None:
    text = SPACE.replace("name: adapted", "name: second").replace(
        "{huggingface: llama}", "{search: adapted}"
    )
    (place.folder / "second.yaml").write_text(text, encoding="utf-8")
    run = place.refused("search", "--space", "second.yaml")
    assert "is a LoRA trial, whose checkpoint holds adapters only" in run.err
    run = place.tuner("scaling", "adapted-1", "adapted-1")
    assert run.status == 2
    run = place.refused("transfer", "adapted-1", "--check")
    assert "adapt frozen weights with LoRA, for which there are no rules" in run.err


def test_validate_says_memory_and_what_is_not_compiled(place: Workplace) -> None:
    run = place.tuner("validate", "--space", "adapted.yaml", "--set", "engine.compile=on")
    assert run.status == 0, run.err
    text = " ".join((run.out + run.err).split())
    assert "for the frozen weights, once for a machine, and" in text
    assert "weights of LoRA), without activations" in text
    folder = Path(__file__).parents[2] / "search_spaces"
    for name in ("lora", "full_finetune"):
        run = place.tuner(
            "validate", "--space", str(folder / f"{name}.yaml"), "--set", "model.context_length=16",
            "--set", "init_from.huggingface=llama", "--set", "data={files: [texts]}",
        )  # fmt: skip
        assert run.status == 0, run.err
    assert "Ticks of LoRA trials are not compiled, although engine.compile is on." in text
