"""Import of pretrained folders against transformers, which runs in a process of its own."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from model.errors import CheckpointError
from model.exchange.families import FAMILIES, family_of
from model.exchange.pretrained import Pretrained
from model.generation.generate import generate, stack_weights
from model.generation.prompts import Prompt
from model.generation.settings import GenerationSettings
from model.network.transformer import TransformerLM
from model.spec.architecture import Architecture, parameter_shapes
from model.spec.data import END_OF_TEXT, DataConfig
from model.tokenizer.tokenizer import Tokenizer
from tests.conftest import MakeSpec
from tests.model.sources.templates import CHATML
from tuner.tracking.records import TrialRecord
from tuner.trained.generate import sample
from tuner.trained.load_trial import TrainedTrial

SCRIPT = Path(__file__).with_name("pretrained_models.py")
KINDS = ("llama2", "llama3", "smollm2", "mistral", "qwen2", "qwen3", "gpt2")
NAMES = [f"{kind}-{shape}" for kind in KINDS for shape in range(3)]
MARKS = [END_OF_TEXT, "<|im_start|>", "<|im_end|>"]
CHATS = {
    "one": [{"role": "user", "content": "What is naïve?"}],
    "two": [{"role": "system", "content": "Be short."}, {"role": "user", "content": "1 + 1?\n"}],
    "three": [{"role": "user", "content": "日本語 <|im_end|> und"}],
}


def run_transformers(what: str, folder: Path) -> None:
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONPATH": ""}
    subprocess.run([sys.executable, "-P", str(SCRIPT), what, str(folder)], check=True,
                   cwd=folder, env=environment)  # fmt: skip


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three random models of each family, and what transformers computes with them."""
    folder = tmp_path_factory.mktemp("pretrained")
    write_chat(folder / "chat")
    run_transformers("make", folder)
    return folder


def config_of(folder: Path) -> dict[str, Any]:
    config: dict[str, Any] = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    return config


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_model_equals_transformers(name: str, models: Path) -> None:
    """Logits, gradients of a step, 100 tokens with our cache; and back without a changed bit."""
    found = Pretrained.open(models / name)
    theirs = dict(np.load(models / f"{name}.npz"))
    a, weights = found.architecture, found.weights()
    module, ids = TransformerLM.of(a, weights), torch.from_numpy(theirs["ids"])
    logits = module(ids.unsqueeze(0))[0]
    assert (logits - torch.from_numpy(theirs["logits"])).abs().max() <= 1e-5
    targets = ids[:, 1:].flatten()
    torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), targets).backward()
    grads = {n: p.grad[0] for n, p in module.named_parameters() if p.grad is not None}
    ours = found.family.export(a, grads)  # a gradient is laid out as its weight
    assert {f"grad {n}" for n in ours} == {n for n in theirs if n.startswith("grad ")}
    for n, grad in ours.items():
        expected = torch.from_numpy(theirs[f"grad {n}"])
        assert (grad - expected).norm() <= 1e-5 * expected.norm(), n
    settings = GenerationSettings(temperature=0, max_tokens=100)
    # ids of no text end: a random model may write the end of text at any place
    endless = a.model_copy(update={"end_of_text": -1})
    steps = generate(endless, stack_weights(a, [weights]), [[ids[0, :5].tolist()]], settings)
    assert [int(step[0, 0]) for step in steps] == theirs["written"].tolist()
    exported = found.family.export(a, weights)
    stored = {}
    for file in (models / name).glob("*.safetensors"):
        stored |= load_file(file)
    assert exported.keys() == stored.keys()
    assert all(torch.equal(exported[n], stored[n]) for n in stored)
    again = found.family.load(a, exported.__getitem__)
    assert all(torch.equal(again[n], weights[n]) for n in weights)
    config = found.family.config(a)
    assert Architecture.model_validate(found.family.entries(config)) == a


def write_chat(folder: Path) -> None:
    """Write a model whose answers end by <|im_end|>, which is not its eos_token, and messages."""
    bytes_ = {byte + len(MARKS): bytes([byte]) for byte in range(256)}
    vocab = {i: mark.encode() for i, mark in enumerate(MARKS)} | bytes_
    weights = write(folder, "llama", vocab_size=len(vocab), context_length=200)
    weights["lm_head.weight"][MARKS.index("<|im_end|>")] *= 5  # so that some answers end
    save_file(
        Pretrained.open(folder).family.export(Pretrained.open(folder).architecture, weights),
        folder / "model.safetensors",
    )
    Tokenizer(vocab, [], MARKS).save(folder, "huggingface")
    for name, value in (
        ("tokenizer_config.json", {"chat_template": CHATML, "eos_token": END_OF_TEXT}),
        ("generation_config.json", {"eos_token_id": [0, 2], "pad_token_id": 0}),
        ("messages.json", [*CHATS.values()]),
    ):
        (folder / name).write_text(json.dumps(value), encoding="utf-8")


@pytest.mark.slow
@pytest.mark.parametrize("number", range(len(CHATS)))
def test_answer_equals_transformers(number: int, models: Path, make_spec: MakeSpec) -> None:
    """The chat template of the folder, greedily, until the end of the turn."""
    found = Pretrained.open(models / "chat")
    tokenizer, a = Tokenizer.from_file(models / "chat"), found.architecture
    data = DataConfig(files=("a.jsonl",), examples=True, chat=found.chat_format(END_OF_TEXT))
    spec = make_spec().model_copy(update={"architecture": a, "data": data})
    record = TrialRecord("0" * 32, 0, "chat-1", "finished", {}, {}, {})
    trained = TrainedTrial(record, spec, 12, found.weights(), tokenizer, "kept")
    *system, user = (message["content"] for message in [*CHATS.values()][number])
    prompt = Prompt(user, system=system[0] if system else None)
    settings = GenerationSettings(temperature=0, max_tokens=100)
    (text,) = sample([trained], prompt, settings=settings)
    ids, written = json.loads((models / "chat" / "answers.json").read_text())[number]
    assert prompt.ids(spec, tokenizer) == ids
    assert written[-1] == 2
    assert 1 < len(written) < 100
    assert text == tokenizer.decode(written[:-1])


@pytest.mark.slow
def test_export_of_an_import_is_read_by_transformers(models: Path, tmp_path: Path) -> None:
    """Mistral goes back as the Llama that computes the same."""
    for name in NAMES[2::3]:
        found = Pretrained.open(models / name)
        family, a = family_of(found.architecture), found.architecture
        assert family.model_type == ("llama" if "mistral" in name else found.family.model_type)
        folder = tmp_path / name
        folder.mkdir()
        save_file(family.export(a, found.weights()), folder / "model.safetensors", {"format": "pt"})
        (folder / "config.json").write_text(json.dumps(family.config(a)), encoding="utf-8")
    run_transformers("read", tmp_path)
    for name in NAMES[2::3]:
        logits = np.load(models / f"{name}.npz")["logits"]
        assert np.abs(np.load(tmp_path / f"{name}.npy") - logits).max() <= 1e-5


# without transformers -------------------------------------------------------------------------

SMALL: dict[str, Any] = {
    "vocab_size": 60, "d_model": 16, "n_heads": 2, "n_layers": 2, "d_ff": 32, "context_length": 8,
}  # fmt: skip
OF_FAMILY: dict[str, dict[str, Any]] = {
    "llama": {"n_kv_heads": 1, "rope_scaling": "linear", "rope_factor": 2.0},
    "mistral": {"head_width": 12},
    "qwen2": {"biases": "qkv", "tied_embeddings": True, "scaled_head": False, "norm_eps": 1e-6},
    "qwen3": {"qk_norm": True, "head_width": 12},
    "gpt2": {
        "biases": "all", "position": "learned", "norm": "layernorm", "activation": "gelu_tanh",
        "tied_embeddings": True, "scaled_head": False,
    },
}  # fmt: skip


def random_weights(a: Architecture) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(1)
    shapes = parameter_shapes(a)
    return {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}


def write(folder: Path, kind: str, **sizes: Any) -> dict[str, Tensor]:
    """Write a small model of a family; return our weights."""
    a, family = Architecture(**{**SMALL, **OF_FAMILY[kind], **sizes}), FAMILIES[kind]
    weights = random_weights(a)
    folder.mkdir(parents=True, exist_ok=True)
    save_file(family.export(a, weights), folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(family.config(a)), encoding="utf-8")
    return weights


@pytest.mark.parametrize("kind", FAMILIES)
def test_import_undoes_export(kind: str, tmp_path: Path) -> None:
    weights = write(tmp_path, kind)
    found = Pretrained.open(tmp_path)
    assert found.family is FAMILIES[kind]
    assert found.architecture == Architecture(**{**SMALL, **OF_FAMILY[kind]})
    read = found.weights()
    assert [*read] == [*parameter_shapes(found.architecture)]
    assert all(torch.equal(read[name], weights[name]) for name in weights)
    assert not FAMILIES[kind].obstacles(found.architecture)


def test_half_precision_is_widened_and_a_card_names_the_licence(tmp_path: Path) -> None:
    weights = write(tmp_path, "llama")
    path = tmp_path / "model.safetensors"
    save_file({name: w.bfloat16() for name, w in load_file(path).items()}, path)
    (tmp_path / "README.md").write_text("---\nlicense: apache-2.0\n---\n# A model\n")
    found = Pretrained.open(tmp_path)
    assert found.about == (
        "a llama of 6,608 weights in BF16, 1 file(s), a context of 8, 60 ids, licence apache-2.0"
    )
    read = found.weights()
    assert all(w.dtype == torch.float32 for w in read.values())
    assert all(torch.equal(read[n], w.bfloat16().float()) for n, w in weights.items())


def test_a_window_shortens_the_context(tmp_path: Path) -> None:
    write(tmp_path, "mistral")
    edit(tmp_path, sliding_window=5)
    assert Pretrained.open(tmp_path).architecture.context_length == 5


def test_gpt2_without_the_prefix_of_its_names(tmp_path: Path) -> None:
    """OpenAI's own file; with the mask that it holds as a tensor."""
    weights = write(tmp_path, "gpt2")
    path = tmp_path / "model.safetensors"
    bare = {n.removeprefix("transformer."): w for n, w in load_file(path).items()}
    save_file({**bare, "h.0.attn.bias": torch.ones(1, 1, 8, 8)}, path)
    read = Pretrained.open(tmp_path).weights()
    assert all(torch.equal(read[name], weights[name]) for name in weights)


def edit(folder: Path, **values: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps({**config_of(folder), **values}), encoding="utf-8")


def without_config(folder: Path) -> None:
    (folder / "config.json").unlink()


def pickled(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def without_weights(folder: Path) -> None:
    (folder / "model.safetensors").unlink()


def cut(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:1000])


def without_a_shard(folder: Path) -> None:
    names = {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}
    text = json.dumps({"weight_map": names})
    (folder / "model.safetensors.index.json").write_text(text, encoding="utf-8")
    (folder / "model.safetensors").rename(folder / names["a"])


def retensor(**changes: Tensor | None) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        path = folder / "model.safetensors"
        tensors = {**load_file(path), **{k.replace("__", "."): w for k, w in changes.items()}}
        save_file({name: w for name, w in tensors.items() if w is not None}, path)

    return change


def config(**values: Any) -> Callable[[Path], None]:
    return lambda folder: edit(folder, **values)


REFUSED: list[tuple[Callable[[Path], None], str]] = [
    (without_config, "there is no config.json; give the folder of a model"),
    (pickled, r"the weights are in pytorch_model.bin, a pickle file, which may run code"),
    (without_weights, "there is no model.safetensors"),
    (cut, "model.safetensors is damaged or no safetensors file"),
    (without_a_shard, "1 of 2 files are missing, model-00002-of-00002.safetensors first"),
    (config(auto_map={"AutoModel": "m.M"}), r"code of its own \(auto_map\), which is never run"),
    (config(quantization_config={"bits": 4}), "the weights are quantized"),
    (config(model_type="mamba"), "the type mamba cannot be imported; the families are llama,"),
    (config(mlp_bias=True), "mlp_bias is true, and models of the family llama are imported with"),
    (config(hidden_act="relu2"), "hidden_act is relu2, and only silu, gelu can be imported"),
    (config(rope_parameters={"rope_type": "yarn"}), "scaled by yarn, and only linear and llama3"),
    (config(rope_parameters=[1]), "config.json has a value of another type than expected"),
    (config(sliding_window=4, use_sliding_window=True, max_position_embeddings="a"), "of another"),
    (config(hidden_size=20), r"embed_tokens.weight has the shape \(60, 16\), and \(60, 20\)"),
    (config(intermediate_size=33), "d_ff must be a multiple of 32, got 33"),
    (config(num_hidden_layers=3), "no tensor model.layers.2.input_layernorm.weight, which config"),
    (config(vocab_size=61), r"embed_tokens.weight has the shape \(60, 16\), and \(61, 16\)"),
    (retensor(lm_head__weight=None), "the files have no tensor lm_head.weight"),
    (retensor(model__extra__weight=torch.ones(2)), "a tensor model.extra.weight, which LlamaFor"),
    (retensor(model__norm__weight=torch.ones(16, dtype=torch.int8)), "tensors are I8, and only"),
]


@pytest.mark.parametrize("change", range(len(REFUSED)))
def test_folder_is_refused_in_one_sentence(change: int, tmp_path: Path) -> None:
    break_it, message = REFUSED[change]
    write(tmp_path, "llama")
    break_it(tmp_path)
    with pytest.raises(CheckpointError, match=message) as error:
        Pretrained.open(tmp_path)
    assert "\n" not in str(error.value)
    assert str(error.value).startswith(f"{tmp_path}: ")


def test_ids_of_the_hub_are_to_be_fetched_first(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"'hf download meta-llama/Llama-3.2-1B --local-dir"):
        Pretrained.open("meta-llama/Llama-3.2-1B")
    with pytest.raises(CheckpointError, match=r"there is no folder .*; give a folder of config"):
        Pretrained.open(tmp_path / "none")


def test_file_that_changes_after_its_check_is_refused(tmp_path: Path) -> None:
    write(tmp_path, "llama")
    found = Pretrained.open(tmp_path)
    shutil.copy(tmp_path / "config.json", tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match="a file changed or is damaged"):
        found.weights()
