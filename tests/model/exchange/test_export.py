"""Exports against what reads them: transformers in a process of its own, gguf, and our loader."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gguf import GGUFReader
from safetensors.torch import load_file
from torch import Tensor

from model.errors import ExportError
from model.exchange.format import TrainedModel
from model.exchange.registry import FORMATS, check, export
from model.exchange.torch_state import load_exported
from model.generation.generate import generate, stack_weights
from model.generation.settings import GenerationSettings
from model.network.encoder_decoder import EncoderDecoder, TransformerPair
from model.network.transformer import LanguageModel, TransformerLM
from model.spec.architecture import Architecture, parameter_shapes
from model.spec.data import END_OF_TEXT
from model.tokenizer.bpe import train_bpe
from model.tokenizer.tokenizer import Tokenizer
from tests.conftest import MakeSpec
from tests.model.architectures import PAIRED, SINGLE
from tests.model.generation.test_kv_cache import single

SCRIPT = Path(__file__).with_name("load_with_transformers.py")
VOCAB = 700
SIZES: dict[str, Any] = {
    "vocab_size": VOCAB + 3,  # the tokenizer made fewer ids than it might have
    "d_model": 48, "n_heads": 4, "n_layers": 2, "context_length": 32, "d_ff": 64,
}  # fmt: skip
# what Llama is, and how each format takes it
LLAMAS: dict[str, dict[str, Any]] = {
    "default": {}, "shared kv heads": {"n_kv_heads": 2}, "one kv head": {"n_kv_heads": 1},
    "theta": {"rope_theta": 500.0, "n_heads": 2}, "tied": {"tied_embeddings": True},
    "geglu": {"activation": "geglu"},
    "llama3": {"rope_scaling": "llama3", "rope_factor": 4.0, "rope_original_length": 16},
    "qwen2": {"biases": "qkv", "norm_eps": 1e-6, "n_kv_heads": 2},
    "qwen3": {"qk_norm": True, "head_width": 16},
    "gpt2": {
        "biases": "all", "position": "learned", "norm": "layernorm", "activation": "gelu_tanh",
    },
}  # fmt: skip
# transformers reads from a GGUF file neither the widths of a gpt2, nor rope_freqs, nor key_length
NOT_READ = {"gguf gpt2", "gguf llama3", "gguf qwen3"}
CLASSES = {
    "qwen2": "Qwen2ForCausalLM", "qwen3": "Qwen3ForCausalLM", "gpt2": "GPT2LMHeadModel",
}  # fmt: skip


def library_text(size: int) -> str:
    """Source text of the standard library with an end of text between files."""
    folder, parts, length = Path(sysconfig.get_path("stdlib")), list[str](), 0
    for path in sorted(folder.glob("*.py")):
        parts.append(path.read_text(encoding="utf-8"))
        length += len(parts[-1])
        if length > size:
            break
    return END_OF_TEXT.join(parts)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    path = tmp_path_factory.mktemp("bpe") / "text.txt"
    path.write_text(library_text(100_000), encoding="utf-8")
    return Tokenizer(*train_bpe(path, VOCAB, [END_OF_TEXT]), [END_OF_TEXT])


@pytest.fixture(scope="module")
def trained(make_spec: MakeSpec, tokenizer: Tokenizer) -> Any:
    """A function from entries of an architecture to a model with random weights."""

    def make(**entries: Any) -> TrainedModel:
        a = Architecture(**{**SIZES, **entries})
        pairs = {"n_encoder_layers": 1, "source_length": 6} if a.n_encoder_layers else {}
        spec = make_spec(model=pairs).model_copy(update={"architecture": a})
        (weights,) = single(a, 1)
        return TrainedModel(spec, weights, tokenizer, "lm-1, trial 0", "# A model\n", "## More\n")

    return make


@pytest.fixture(scope="module")
def exports(
    trained: Any, tokenizer: Tokenizer, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, dict[str, Any]]:
    """All that is a Llama in both formats, and what transformers says of it."""
    folder = tmp_path_factory.mktemp("exports")
    for name, entries in LLAMAS.items():
        for made in ("hf", "gguf"):
            if f"{made} {name}" in names(made):
                export(made, trained(**entries), folder / f"{made} {name}")
    generator = torch.Generator().manual_seed(0)
    np.save(folder / "ids.npy", torch.randint(VOCAB, (3, 32), generator=generator).numpy())
    text = library_text(1_000_000) + "日本語 русский ½ x² 🙂 'LL I'll\r\n\t \n  "
    assert len(text.encode()) > 1_000_000
    (folder / "text.txt").write_bytes(text.encode())
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONPATH": ""}
    subprocess.run(
        [sys.executable, "-P", str(SCRIPT), str(folder)], check=True, cwd=folder, env=environment
    )
    return folder, json.loads((folder / "said.json").read_text(encoding="utf-8"))


def names(made: str) -> list[str]:
    refused = NOT_READ | {"gguf geglu"}
    return [f"{made} {name}" for name in LLAMAS if f"{made} {name}" not in refused]


@pytest.mark.slow
@pytest.mark.parametrize("name", [*names("hf"), *names("gguf")])
def test_transformers_gives_equal_results(
    name: str, exports: tuple[Path, dict[str, Any]], trained: Any, tokenizer: Tokenizer
) -> None:
    """Logits, the ids of a text (once of a megabyte), and what is written greedily."""
    folder, said = exports
    model = trained(**LLAMAS[name.partition(" ")[2]])
    a, weights = model.architecture, stack_weights(model.architecture, [model.weights])
    ids = torch.from_numpy(np.load(folder / "ids.npy"))
    ours = LanguageModel(a)(weights, ids.unsqueeze(0))[0]
    theirs = torch.from_numpy(np.load(folder / f"{name}.logits.npy"))
    assert (ours - theirs).abs().max() < 1e-5
    about = said[name]
    assert about["class"] == CLASSES.get(name.partition(" ")[2], "LlamaForCausalLM")
    settings = GenerationSettings(temperature=0, max_tokens=20)
    written = [int(step[0, 0]) for step in generate(a, weights, [[ids[0, :5].tolist()]], settings)]
    assert about["written"][: len(written)] == written
    assert len(written) == 20
    text = (folder / "text.txt").read_bytes().decode()
    text = text if name.endswith("default") else text[-20_000:]
    assert np.load(folder / f"{name}.ids.npy").tolist() == tokenizer.encode(text)
    assert about["decodes"]
    assert about["is_fast"]
    assert about["eos"] == END_OF_TEXT
    config = about["config"]
    assert config.get("max_position_embeddings", config.get("n_positions")) == 32


def test_hf_configuration_describes_the_model(exports: tuple[Path, dict[str, Any]]) -> None:
    _, said = exports
    about = said["hf theta"]
    assert about["longest"] == 32
    assert about["config"]["rope_parameters"]["rope_theta"] == 500.0
    assert about["config"]["rms_norm_eps"] == 1e-5
    assert about["config"]["bos_token_id"] == about["config"]["eos_token_id"] == 0
    assert not about["config"]["tie_word_embeddings"]
    assert about["sampling"]["do_sample"]
    assert about["sampling"]["temperature"] == GenerationSettings().temperature
    assert about["sampling"]["eos_token_id"] == 0
    assert said["hf geglu"]["config"]["hidden_act"] == "gelu"


def test_gguf_of_families_that_transformers_does_not_read(trained: Any, tmp_path: Path) -> None:
    """Names and layouts of llama.cpp: GPT-2's q, k, v are one matrix; Llama 3's angles divided."""
    gpt2 = trained(**LLAMAS["gpt2"])
    export("gguf", gpt2, tmp_path / "gpt2")
    reader, w = GGUFReader(tmp_path / "gpt2" / "model.gguf"), gpt2.weights
    assert reader.fields["general.architecture"].contents() == "gpt2"
    epsilon = reader.fields["gpt2.attention.layer_norm_epsilon"].contents()
    assert epsilon == pytest.approx(1e-5)
    tensors = {t.name: torch.from_numpy(t.data.copy()) for t in reader.tensors}
    qkv = torch.cat([w[f"layers.1.attn.{part}_proj.weight"] for part in "qkv"])
    assert torch.equal(tensors["blk.1.attn_qkv.weight"], qkv)
    assert torch.equal(tensors["blk.0.ffn_up.bias"], w["layers.0.ffn.w1.bias"])
    assert torch.equal(tensors["position_embd.weight"], w["position_embeddings.weight"])
    assert sum(t.numel() for t in tensors.values()) == gpt2.architecture.num_parameters
    export("gguf", trained(**LLAMAS["llama3"]), tmp_path / "llama3")
    reader = GGUFReader(tmp_path / "llama3" / "model.gguf")
    (divisors,) = (t.data for t in reader.tensors if t.name == "rope_freqs.weight")
    qwen3 = trained(**LLAMAS["qwen3"])
    export("gguf", qwen3, tmp_path / "qwen3")
    reader_3 = GGUFReader(tmp_path / "qwen3" / "model.gguf")
    assert reader_3.fields["qwen3.attention.key_length"].contents() == 16
    export("hf", qwen3, tmp_path / "hf")  # the same halves of a head are rotated
    stored = load_file(tmp_path / "hf" / "model.safetensors")
    for name, theirs in (("attn_q", "q_proj"), ("attn_k_norm", "k_norm"), ("attn_v", "v_proj")):
        (data,) = (t.data for t in reader_3.tensors if t.name == f"blk.1.{name}.weight")
        key = f"model.layers.1.self_attn.{theirs}.weight"
        assert torch.equal(torch.from_numpy(data.copy()), stored[key])
    # 16 tokens: the fastest pair turns 2.5 times, the others less than once
    assert divisors.tolist() == pytest.approx([1 / (0.5154 * 0.75 + 0.25), 4, 4, 4, 4, 4], rel=1e-2)


def test_gguf_holds_everything(
    exports: tuple[Path, dict[str, Any]], trained: Any, tokenizer: Tokenizer
) -> None:
    folder, _ = exports
    reader = GGUFReader(folder / "gguf shared kv heads" / "model.gguf")
    fields = {name: field.contents() for name, field in reader.fields.items()}
    model = trained(n_kv_heads=2)
    assert fields["general.architecture"] == "llama"
    assert fields["general.name"] == "lm-1, trial 0"
    assert fields["general.file_type"] == 0
    for name, value in (
        ("vocab_size", VOCAB + 3), ("context_length", 32), ("embedding_length", 48),
        ("block_count", 2), ("feed_forward_length", 64), ("attention.head_count", 4),
        ("attention.head_count_kv", 2), ("rope.dimension_count", 12), ("rope.freq_base", 10_000),
    ):  # fmt: skip
        assert fields[f"llama.{name}"] == value
    assert fields["llama.attention.layer_norm_rms_epsilon"] == pytest.approx(1e-5)
    assert fields["tokenizer.ggml.model"] == "gpt2"
    assert fields["tokenizer.ggml.pre"] == "gpt-2"
    assert fields["tokenizer.ggml.tokens"][0] == END_OF_TEXT
    assert len(fields["tokenizer.ggml.tokens"]) == len(set(fields["tokenizer.ggml.tokens"]))
    kinds = fields["tokenizer.ggml.token_type"]
    assert kinds == [3, *[1] * (VOCAB - 1), *[5] * 3]
    assert len(fields["tokenizer.ggml.merges"]) == len(tokenizer.merges)
    assert fields["tokenizer.ggml.bos_token_id"] == fields["tokenizer.ggml.eos_token_id"] == 0
    assert not fields["tokenizer.ggml.add_bos_token"]
    tensors = {t.name: torch.from_numpy(t.data.copy()) for t in reader.tensors}
    ours = model.weights
    assert len(tensors) == len(ours)
    for theirs, name in (
        ("token_embd", "token_embeddings"), ("output", "lm_head"), ("output_norm", "ln_final"),
        ("blk.1.attn_q", "layers.1.attn.q_proj"), ("blk.1.attn_k", "layers.1.attn.k_proj"),
        ("blk.0.attn_v", "layers.0.attn.v_proj"), ("blk.0.ffn_gate", "layers.0.ffn.w1"),
        ("blk.0.attn_output", "layers.0.attn.output_proj"), ("blk.0.ffn_up", "layers.0.ffn.w3"),
        ("blk.0.ffn_down", "layers.0.ffn.w2"), ("blk.1.attn_norm", "layers.1.ln1"),
        ("blk.1.ffn_norm", "layers.1.ln2"),
    ):  # fmt: skip
        assert torch.equal(tensors[f"{theirs}.weight"], ours[f"{name}.weight"])


@pytest.mark.slow
@pytest.mark.parametrize("choice", [*SINGLE, *(f"encoder: {name}" for name in PAIRED)])
def test_torch_loads_every_architecture(
    choice: str, trained: Any, tokenizer: Tokenizer, tmp_path: Path
) -> None:
    _, is_pair, name = choice.rpartition("encoder: ")
    made = trained(**(PAIRED if is_pair else SINGLE)[name])
    a, weights = made.architecture, {n: w.unsqueeze(0) for n, w in made.weights.items()}
    export("torch", made, tmp_path / "out")
    model, loaded = load_exported(tmp_path / "out")
    ids = torch.randint(VOCAB, (1, 2, 9), generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        if is_pair:
            assert isinstance(model, TransformerPair)
            sources = ids[..., : a.source_length]
            assert torch.equal(model(ids, sources), EncoderDecoder(a)(weights, ids, sources))
        else:
            assert isinstance(model, TransformerLM)
            assert torch.equal(model(ids), LanguageModel(a)(weights, ids))
    assert model.architecture == a
    assert loaded.fingerprint == tokenizer.fingerprint
    assert {n: w.shape[1:] for n, w in model.state_dict().items()} == parameter_shapes(a)


def test_load_exported_reports_errors(trained: Any, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="is not an export of the format torch"):
        load_exported(tmp_path)
    export("torch", trained(), tmp_path / "small")
    export("torch", trained(n_layers=1), tmp_path / "other")
    (tmp_path / "other" / "model.safetensors").replace(tmp_path / "small" / "model.safetensors")
    with pytest.raises(ExportError, match=r"does not fit spec\.json"):
        load_exported(tmp_path / "small")
    (tmp_path / "small" / "model.safetensors").write_bytes(b"x")
    with pytest.raises(ExportError, match="is not an export of the format torch"):
        load_exported(tmp_path / "small")


# what cannot be exported --------------------------------------------------------------------------

OBSTACLES: list[tuple[dict[str, Any], str]] = [
    ({"norm": "layernorm"}, "norm: layernorm"),
    ({"norm_placement": "post"}, "norm_placement: post"),
    ({"activation": "relu"}, "activation: relu"),
    ({"activation": "gelu"}, "activation: gelu"),
    ({"activation": "silu"}, "activation: silu"),
    ({"position": "sinusoidal"}, "position: sinusoidal"),
    ({"position": "learned"}, "position: learned"),
    ({"position": "alibi"}, "position: alibi"),
    ({"position": "relative"}, "position: relative"),
    ({"position": "none"}, "position: none"),
    ({"logit_soft_cap": 30.0}, "logit_soft_cap: 30"),
    ({"attend_across_documents": False}, "attend_across_documents: false"),
    ({"n_encoder_layers": 2}, "n_encoder_layers: 2"),
]


@pytest.mark.parametrize(("entries", "obstacle"), OBSTACLES)
@pytest.mark.parametrize("name", ["hf", "gguf"])
def test_obstacle_is_named(
    name: str, entries: dict[str, Any], obstacle: str, trained: Any, tmp_path: Path
) -> None:
    with pytest.raises(ExportError, match=f"cannot have {obstacle}; use --format torch$"):
        export(name, trained(**entries), tmp_path / "out")
    assert not (tmp_path / "out").exists()


EXPRESSED = {
    "default", "one kv head", "shared kv heads", "geglu", "qk-norm", "tied", "wide heads",
    "tied without a factor", "biases of q, k, v", "linear rope", "llama3 rope", "gpt2",
}  # fmt: skip


def test_every_choice_is_expressed_or_refused() -> None:
    """A new choice of the architecture must be thought of here."""
    for name, choices in SINGLE.items():
        a = Architecture(**{**SIZES, **choices})
        refused = FORMATS["hf"].obstacles(a)
        assert bool(refused) == (name not in EXPRESSED), (name, refused)
        assert FORMATS["torch"].obstacles(a) == []


def test_all_obstacles_are_named_at_once(tmp_path: Path) -> None:
    a = Architecture(**SIZES, norm="layernorm", activation="geglu", qk_norm=True)
    expected = (
        "the format gguf writes a model of llama.cpp, which cannot have norm: layernorm, "
        "qk_norm: true, activation: geglu or tokenizer.pattern: gpt4; use --format torch"
    )
    with pytest.raises(ExportError) as caught:
        check("gguf", a, "gpt4", tmp_path / "out", force=False)
    assert str(caught.value) == expected
    with pytest.raises(ExportError, match=r"activation: geglu; use --format hf or torch$"):
        check("gguf", Architecture(**SIZES, activation="geglu"), None, tmp_path, force=False)


def test_missing_package_is_reported(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("model.exchange.registry.find_spec", lambda name: None)
    with pytest.raises(ExportError, match="needs the package gguf: pip install gguf"):
        check("gguf", Architecture(**SIZES), "gpt2", tmp_path / "out", force=False)


# the folder -------------------------------------------------------------------------------------


def test_folder_has_digests_of_all_files(exports: tuple[Path, dict[str, Any]]) -> None:
    folder = exports[0] / "hf default"
    sums = dict(
        reversed(line.split("  ")) for line in (folder / "SHA256SUMS").read_text().splitlines()
    )
    files = {path.name for path in folder.iterdir()}
    assert set(sums) == files - {"SHA256SUMS"}
    assert files >= {"config.json", "tokenizer.json", "generation_config.json", "README.md"}
    readme = (folder / "README.md").read_text(encoding="utf-8")
    for name, digest in sums.items():
        assert hashlib.sha256((folder / name).read_bytes()).hexdigest() == digest
        assert digest in readme or name == "README.md"
    places = [
        readme.index(part)
        for part in ("---\nlibrary", "# A model\n\n## Use it\n", "\n\n## More\n\n## Files\n")
    ]
    assert places == sorted(places)
    assert len({path.stat().st_mode for path in folder.iterdir()}) == 1


def test_foreign_folder_is_not_replaced(trained: Any, tmp_path: Path) -> None:
    target = tmp_path / "deep" / "out"
    first = export("torch", trained(), target)
    with pytest.raises(ExportError, match="an earlier export; give another folder, or --force"):
        export("torch", trained(), target)
    old = (target / "model.safetensors").read_bytes()
    again = export("hf", trained(qk_norm=False), target, force=True)
    assert {p.name for p in first} - {p.name for p in again} == {"spec.json"}
    assert (target / "model.safetensors").read_bytes() != old
    (target / "thesis.tex").write_text("x")
    with pytest.raises(ExportError, match=r"holds thesis\.tex, which is not part of an export"):
        export("torch", trained(), target, force=True)
    with pytest.raises(ExportError, match="is a file"):
        export("torch", trained(), target / "thesis.tex")
    assert [path.name for path in target.parent.iterdir()] == ["out"]


def test_folder_is_complete_or_unchanged(
    trained: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "out"
    export("torch", trained(), target)
    before = {path.name: path.read_bytes() for path in target.iterdir()}

    def full_disk(*args: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Tokenizer, "save", full_disk)
    with pytest.raises(ExportError, match=r"cannot write .*out: No space left on device"):
        export("torch", trained(), target, force=True)
    assert {path.name: path.read_bytes() for path in target.iterdir()} == before
    assert list(tmp_path.iterdir()) == [target]


def test_equal_names_are_reported(trained: Any, tokenizer: Tokenizer, tmp_path: Path) -> None:
    """A special token that is spelled as GPT-2's name of a space and a letter."""
    made = trained()
    assert b" a" in tokenizer.vocab.values()
    twice = Tokenizer(tokenizer.vocab, tokenizer.merges, [END_OF_TEXT, "Ġa"])
    model = TrainedModel(made.spec, made.weights, twice, made.name, made.about, made.details)
    with pytest.raises(ExportError, match="the format hf cannot express the tokenizer"):
        export("hf", model, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_weights_are_one_model(trained: Any, tmp_path: Path) -> None:
    """What was exported holds no more than the model, whatever it was a view of."""
    made = trained()
    wide: dict[str, Tensor] = {n: torch.stack([w, w])[0] for n, w in made.weights.items()}
    model = TrainedModel(made.spec, wide, made.tokenizer, made.name, made.about, made.details)
    export("torch", model, tmp_path / "out")
    size = (tmp_path / "out" / "model.safetensors").stat().st_size
    assert size < 4 * made.architecture.num_parameters + 10_000
