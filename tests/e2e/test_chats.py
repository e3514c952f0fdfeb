"""Fine-tuning on chats from end to end: written by init, searched, resumed, replayed, exported."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from model.tokenizer.bpe import train_bpe
from model.tokenizer.tokenizer import Tokenizer
from tests.e2e.conftest import Run, Workplace, make_workplace
from tests.model.exchange.test_pretrained import write
from tests.model.sources.templates import CHATML

pytestmark = pytest.mark.slow

MARKS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
CHANGES = (
    "--set", "hyperparameters.α_max={log: [1e-3, 1e-2]}", "--set", "budget.tokens=9000",
    "--set", "budget.reports=3", "--set", "search.scheduler=none", "--set", "confirm=off",
    "--set", "data.validation_fraction=0.2", "--set", "data.multiple_choice=choices.jsonl",
    "--set", "objective.metric=exact_match", "--set", "objective.mode=max",
)  # fmt: skip


def chat(number: int) -> dict[str, Any]:
    contents = (f"{number % 5}?", f"{number % 5}{number % 5}")
    roles = zip(("user", "assistant"), contents, strict=True)
    return {"messages": [{"role": role, "content": content} for role, content in roles]}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Workplace:
    """A model with a chat template, chats and questions."""
    folder = tmp_path_factory.mktemp("chats")
    place = make_workplace(folder)
    (folder / "a.txt").write_text("system user assistant You are helpful. 0 1 2 3 4? " * 30)
    trained = train_bpe(folder / "a.txt", 290, MARKS)
    write(folder / "m", "llama", vocab_size=290, context_length=96)
    Tokenizer(*trained, MARKS).save(folder / "m", "huggingface")
    config = {"chat_template": CHATML, "eos_token": "<|im_end|>"}
    (folder / "m" / "tokenizer_config.json").write_text(json.dumps(config))
    (folder / "chats.jsonl").write_text("\n".join(json.dumps(chat(n)) for n in range(150)))
    question = {"prompt": "2?", "choices": ["33", "22"], "answer": 1}
    (folder / "choices.jsonl").write_text(json.dumps(question))
    return place


@pytest.fixture(scope="module")
def searched(place: Workplace) -> Run:
    run = place.tuner("init", "finetune", "--model", "m", "--data", "chats.jsonl")
    assert run.status == 0, run.err
    run = place.tuner(
        "search", "--space", "finetune.yaml", "--workers", "1", "--trials", "1", *CHANGES
    )
    assert run.status == 0, run.err
    return run


def test_init_measures_the_examples(place: Workplace, searched: Run) -> None:
    text = (place.folder / "finetune.yaml").read_text(encoding="utf-8")
    assert 'data:        {files: ["chats.jsonl"], examples: true}' in text
    assert "# 150 examples of about " in text
    assert "context_length: 96" in text


def test_search_says_what_is_known_and_reports_answers(place: Workplace, searched: Run) -> None:
    said = searched.out + searched.err
    assert "validation examples have the prompt of a training example" in said
    assert "% of the answers' tokens right, and " in said
    (trial,) = place.tuner("show", "--search", "finetune-1", "--json").json["trials"]
    assert {"token_accuracy", "exact_match", "acc", "acc_norm"} <= trial["metrics"].keys()
    assert trial["metrics"]["acc"] in (0.0, 1.0)


def test_search_is_resumed_and_replayed(place: Workplace, searched: Run) -> None:
    """With the template of the record: the model has none any more."""
    config = place.folder / "m" / "tokenizer_config.json"
    config.rename(place.folder / "away.json")
    run = place.tuner("search", "--resume", "finetune-1", "--trials", "2")
    assert run.status == 0, run.err
    replayed = place.tuner("replay", "--search", "finetune-1")
    assert replayed.status == 0, replayed.err
    assert "bit-exact: all 3 reports are the same" in replayed.out + replayed.err
    (place.folder / "away.json").rename(config)


def test_validate_and_info_count_what_is_seen(place: Workplace, searched: Run) -> None:
    run = place.tuner("validate", "--space", "finetune.yaml", *CHANGES)
    said = " ".join((run.out + run.err).split())
    assert "validation examples of" in said
    assert "are of answers; those are learned." in said
    assert "training sequences of 96 tokens, several examples each" in said
    info = place.tuner("data", "info", "--space", "finetune.yaml", *CHANGES, "--json").json
    sizes = info["layouts"]["96"]["train"]
    assert (sizes["examples"], sizes["cut_tokens"]) == (info["train"]["examples"], 0)
    assert info["known_prompts"] == info["validation"]["examples"]
    run = place.tuner("data", "sample", "--space", "finetune.yaml", *CHANGES, "--json")
    (example, *_) = run.json["examples"]
    pairs = zip(example["ids"], example["learned"], strict=True)
    learned = [token for token, is_learned in pairs if is_learned]
    answer = Tokenizer.from_file(place.folder / "m").decode(learned)
    asked = example["text"].split("user\n")[1][0]
    assert answer == f"{asked}{asked}<|im_end|>"


def test_export_keeps_the_chat_template(place: Workplace, searched: Run) -> None:
    run = place.tuner("export", "--search", "finetune-1", "-o", "exported")
    assert run.status == 0, run.err
    folder = Path(place.folder / "exported")
    config = json.loads((folder / "tokenizer_config.json").read_text())
    assert config["chat_template"] == CHATML
    assert config["eos_token"] == "<|im_end|>"
    generation = json.loads((folder / "generation_config.json").read_text())
    tokenizer = Tokenizer.from_file(folder)
    assert generation["eos_token_id"] == [tokenizer.encode(t)[0] for t in (MARKS[0], MARKS[2])]


def test_generate_answers_a_message(place: Workplace, searched: Run) -> None:
    words = ("generate", "--search", "finetune-1", "--prompt", "3?", "--max-tokens", "4")
    run = place.tuner(*words, "--system", "Be short.", "--json")
    assert run.status == 0, run.err
    assert (run.json["system"], run.json["texts"][0]["is_answer"]) == ("Be short.", True)
    assert "3?" not in run.json["texts"][0]["text"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("model.context_length=12", "in sequences of 12 tokens no answer of the training examples"),
        ("model.attend_across_documents=false", "has no effect on examples, which never see each"),
        ("data.loss_on=all", "exact_match is available only with examples whose answers are"),
    ],
)
def test_spaces_that_do_not_fit(change: str, message: str, place: Workplace, searched: Run) -> None:
    run = place.refused("validate", "--space", "finetune.yaml", *CHANGES, "--set", change)
    assert message in " ".join(run.err.split())
