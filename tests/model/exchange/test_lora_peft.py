"""LoRA against PEFT under torch's AdamW, which run in a process of their own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from model.checkpoints import checkpoint
from model.checkpoints.warm_start import write_start
from model.corpus.dataset import TextDataset
from model.corpus.order import data_order
from model.exchange.format import TrainedModel
from model.exchange.hugging_face import HUGGING_FACE
from model.exchange.peft import PEFT, export_adapters, load_adapters
from model.exchange.pretrained import Pretrained
from model.network.dropout import Dropout
from model.network.lora import _FIRST_PLACE, _MOST_MAPS, SCALE, merge
from model.network.transformer import LanguageModel
from model.optimizers.registry import coefficients
from model.optimizers.update_rule import update
from model.randomness import DropoutMasks
from model.spec.architecture import Architecture, adapter_shapes
from model.spec.lora import matrices_of
from model.spec.trial import InitFrom, TrialSpec
from model.stack.matrices import Matrices
from model.tokenizer.tokenizer import Tokenizer
from tests.conftest import MakeSpec
from tests.model.exchange.test_pretrained import write
from tests.model.test_law import train

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not __import__("importlib").util.find_spec("peft"), reason="needs peft"),
]
Tokens = tuple[np.ndarray, np.ndarray]
SCRIPT = Path(__file__).with_name("train_with_peft.py")
SIZES = {"vocab_size": 288, "n_kv_heads": 1, "rope_scaling": "none", "rope_factor": 1.0}
NAMES = {
    "all": ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"],
    "attention": ["q_proj", "k_proj", "v_proj", "o_proj"],
    "mlp": ["gate_proj", "up_proj", "down_proj"],
    "q_proj,v_proj": ["q_proj", "v_proj"],
}
RATE, DECAY, UPDATES, DROPPED = 1e-3, 0.1, 100, 0.25
CASES: dict[str, dict[str, Any]] = {
    f"{targets}-{number}": {
        "targets": targets, "rank": rank, "alpha": 12.0, "rslora": rslora, "factor": factor,
        "dtype": "float64", "updates": UPDATES, "masks": masks,
    }
    for number, (targets, rank, rslora, factor, masks) in enumerate((
        ("all", 4, False, 1.0, False), ("all", 3, True, 4.0, True),
        ("attention", 8, True, 1.0, False),
        ("mlp", 2, False, 16.0, False), ("q_proj,v_proj", 4, False, 1.0, True),
    ))
}  # fmt: skip
# whose queries, keys and values are one matrix, and which has two modules called c_proj
GPT2 = {
    "gpt2-attention": {**CASES["attention-2"]},
    "gpt2-all": {**CASES["all-0"]},
    "gpt2-qv": {**CASES["q_proj,v_proj-4"]},
}
CASES["single"] = {**CASES["all-0"], "updates": 1}
CASES["float32"] = {**CASES["all-0"], "dtype": "float32"}


def run_peft(folder: Path) -> None:
    path = os.pathsep.join(p for p in sys.path if p.endswith((".extra", "site-packages")))
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONPATH": path}
    subprocess.run([sys.executable, "-P", str(SCRIPT), str(folder)], check=True,
                   cwd=folder, env=environment)  # fmt: skip


def spec_of(make_spec: MakeSpec, folder: Path, case: dict[str, Any]) -> TrialSpec:
    """The trial of a case: its rate and decay as torch's AdamW has them, nothing clipped."""
    found = Pretrained.open(folder)
    tensors = {f"weights.{name}": w for name, w in found.weights().items()}
    start = InitFrom(sha256=checkpoint.digest(tensors))
    write_start(folder, start, tensors)
    names = found.architecture.model_dump(exclude={"vocab_size"})
    model = {**names, "lora_rank": case["rank"], "lora_targets": case["targets"]}
    return make_spec(
        model=model, init_from=start, steps=case["updates"], schedule="constant", warmup_steps=0,
        learning_rate=RATE, weight_decay=DECAY, grad_clip=0.0, lora_alpha=case["alpha"],
        lora_scaling="alpha/sqrt(rank)" if case["rslora"] else "alpha/rank",
        lora_b_rate_factor=case["factor"], lora_dropout=DROPPED if case["masks"] else 0.0,
    )  # fmt: skip


def masks_of(a: Architecture, update: int, name: str, number: int, tokens: int) -> Tensor:
    """Our mask of an update, of the input of one map: place as in `AdaptedBlock`."""
    maps = matrices_of(a.lora_targets, is_gated=True)
    place = _FIRST_PLACE + _MOST_MAPS * number + sorted(maps).index(name)
    width = a.d_ff if name == "ffn.w2" else a.d_model
    drop = DropoutMasks(torch.tensor([1000 + update]), torch.tensor([DROPPED]))
    return drop(torch.ones(1, tokens, width, dtype=torch.float64), place)


def write_small(folder: Path, kind: str, **sizes: Any) -> None:
    """Write a model of random weights below 1.

    A hundred updates would otherwise multiply the rounding by 100,000.
    """
    weights = write(folder, kind, **sizes)
    found = Pretrained.open(folder)
    small = {n: w if w.dim() == 1 else 0.3 * w for n, w in weights.items()}
    save_file(found.family.export(found.architecture, small), folder / "model.safetensors")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, tokens: Tokens, make_spec: MakeSpec) -> Path:
    """A Llama of random weights, and what PEFT makes of it in each case."""
    folder = tmp_path_factory.mktemp("peft")
    write_small(folder, "llama", **SIZES)
    spec = spec_of(make_spec, folder, CASES["all-0"])
    a, b = spec.architecture, spec.hyperparameters.batch_size
    order = data_order(spec.seed, np.arange(UPDATES * b), spec.train_sequences)
    inputs, targets = TextDataset(tokens[0]).batch(order.reshape(UPDATES, b), a).arrays
    masks: dict[str, Any] = {}
    for case in CASES.values():
        adapted = a.model_copy(update={"lora_targets": case["targets"]})
        for name, theirs in matrices_of(case["targets"], is_gated=True).items():
            for i in range(a.n_layers if case["masks"] else 0):
                each = [masks_of(adapted, u, name, i, inputs[0].size) for u in range(UPDATES)]
                masks[f"masks {case['targets']} {i}.{theirs}"] = torch.cat(each).numpy()
    for number, case in enumerate(CASES.values()):
        case |= {"seed": number, "rate": RATE, "decay": DECAY}
    (folder / "cases.json").write_text(
        json.dumps({n: {**c, "targets": NAMES[c["targets"]], "set": c["targets"]}
                    for n, c in CASES.items()}), encoding="utf-8",
    )  # fmt: skip
    np.savez(folder / "data.npz", inputs=inputs, targets=targets, **masks)
    export(folder, spec_of(make_spec, folder, CASES["attention-2"]))
    for name, case in GPT2.items():
        write_small(folder / name, "gpt2", vocab_size=288)
        np.savez(folder / name / "data.npz", inputs=inputs)
        export(folder / name, spec_of(make_spec, folder / name, case))
    run_peft(folder)
    return folder


def random_adapters(a: Architecture) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(3)
    return {n: 0.1 * torch.randn(s, generator=generator) for n, s in adapter_shapes(a).items()}


def export(folder: Path, spec: TrialSpec) -> None:
    """Write random adapters to the folder adapter/, and merged into their base to merged/."""
    adapters, found = random_adapters(spec.architecture), Pretrained.open(folder)
    tokenizer = Tokenizer({i: bytes([i]) for i in range(256)} | {256: b"<|endoftext|>"}, [],
                          ["<|endoftext|>"])  # fmt: skip
    merged = merge(found.weights(), adapters, spec.lora_scale)
    model = TrainedModel(spec, merged, tokenizer, "x", "", "", adapters)
    for name, each in (("adapter", PEFT), ("merged", HUGGING_FACE)):
        (folder / name).mkdir()
        each.write(model, folder / name)


def adapters_of(a: Architecture, stored: dict[str, np.ndarray], when: str) -> dict[str, Tensor]:
    """Adapters of PEFT by our names."""
    tensors = {
        name.removeprefix(f"{when} ").replace(".default", ""): torch.from_numpy(values)
        for name, values in stored.items()
        if name.startswith(when)
    }
    return load_adapters(a, tensors)


@pytest.mark.parametrize("name", [name for name, c in CASES.items() if c["dtype"] == "float64"])
def test_updates_equal_peft_in_float64(name: str, trained: Path, make_spec: MakeSpec) -> None:
    """One update and a hundred: all losses and all adapters."""
    case, stored = CASES[name], dict(np.load(trained / f"{name}.npz"))
    data, spec = np.load(trained / "data.npz"), spec_of(make_spec, trained, case)
    a, model = spec.architecture, LanguageModel(spec.architecture)
    frozen = {n: w.double()[None] for n, w in Pretrained.open(trained).weights().items()}
    frozen[SCALE] = torch.tensor([spec.lora_scale], dtype=torch.float64)
    matrices = Matrices(a, 1, torch.device("cpu"), torch.float32)
    theta = torch.zeros_like(matrices.theta, dtype=torch.float64)
    m, v, row = theta.clone(), theta.clone(), theta.clone()
    for view, w in zip(
        matrices.views(theta).values(), adapters_of(a, stored, "first").values(), strict=True
    ):
        view[0] = w
    losses = []
    for number in range(case["updates"]):
        adapters = {n: view.requires_grad_() for n, view in matrices.views(theta).items()}
        inputs, targets = (torch.from_numpy(data[n][number])[None] for n in ("inputs", "targets"))
        masks = DropoutMasks(torch.tensor([1000 + number]), torch.tensor([DROPPED]))
        drop = Dropout(lora=masks) if case["masks"] else None
        logits = model.head({**frozen, **adapters}, model.activations(
            {**frozen, **adapters}, inputs, drop=drop))  # fmt: skip
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 2), targets.flatten())
        losses.append(loss.item())
        grads = torch.autograd.grad(loss, list(adapters.values()))
        for view, grad in zip(matrices.views(row).values(), grads, strict=True):
            view.copy_(grad)
        c = coefficients(number + 1, RATE, spec.hyperparameters)
        theta, m, v = update(theta.detach(), m, v, row, c, matrices.layout)
    assert np.abs(np.array(losses) - stored["losses"]).max() <= 1e-10
    assert losses[-1] < losses[0] or case["updates"] == 1
    last = adapters_of(a, stored, "last")
    for n, view in matrices.views(theta.detach()).items():
        assert (view[0] - last[n]).abs().max() <= 1e-10, n


def test_engine_equals_peft_in_float32(
    trained: Path, tmp_path: Path, tokens: Tokens, make_spec: MakeSpec
) -> None:
    """A hundred updates of the engine itself, from the adapters of PEFT.

    AdamW divides by √v̂, so that the rounding of a small gradient moves a weight as a large one
    does: adapters may differ by a part in 10,000 of their change (measured: one in 100,000).
    """
    case, stored = CASES["float32"], dict(np.load(trained / "float32.npz"))
    spec = spec_of(make_spec, trained, case)
    a = spec.architecture
    first, last = adapters_of(a, stored, "first"), adapters_of(a, stored, "last")
    from model.stack import stack

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stack, "initial_adapter", lambda key, name, shape, device: first[name])
        ((reports, state),) = train(tokens, tmp_path, [spec], slots=1, width=1, starts=trained)
    assert state is not None
    for name in adapter_shapes(a):
        change = (last[name] - first[name]).norm()
        assert (state[f"weights.{name}"] - last[name]).norm() <= 1e-4 * change, name
    losses = stored["losses"]
    train_losses = [values[3] for values in reports]  # mean since the report before
    ends = np.cumsum([0, *np.diff([0, *spec.report_steps])])
    for loss, begin, end in zip(train_losses, ends, ends[1:], strict=False):
        assert loss == pytest.approx(losses[begin:end].mean(), rel=1e-5)


@pytest.mark.parametrize("name", ["", *GPT2])
def test_peft_reads_what_is_exported(name: str, trained: Path, make_spec: MakeSpec) -> None:
    """The adapter over its base, and the merged model, compute what ours does."""
    folder = trained / name
    spec = spec_of(make_spec, folder, GPT2.get(name, CASES["attention-2"]))
    a, base = spec.architecture, Pretrained.open(folder).weights()
    adapters = random_adapters(a)
    tensors = export_adapters(a, adapters)
    assert all(torch.equal(w, load_adapters(a, tensors)[n]) for n, w in adapters.items())
    ids = torch.from_numpy(np.load(trained / "data.npz")["inputs"][0])[None]
    every = {n: w[None] for n, w in {**base, **adapters}.items()}
    every[SCALE] = torch.tensor([spec.lora_scale])
    with torch.no_grad():
        ours = LanguageModel(a)(every, ids)[0].numpy()
        plain = LanguageModel(a)({n: w[None] for n, w in base.items()}, ids)[0].numpy()
    assert np.abs(np.load(folder / "adapter.npy") - ours).max() <= 1e-5
    assert np.abs(np.load(folder / "merged.npy") - ours).max() <= 1e-5
    assert np.abs(plain - ours).max() > 1e-2
