"""Run by test_lora_peft.py, apart: LoRA of PEFT under torch's AdamW, with nothing of ours.

The rounding of transformers in float32, which a model in float64 keeps in norms and rotary angles,
is taken out: the formulas stay.
"""

from __future__ import annotations

import json
import sys
import warnings
from pathlib import Path
from typing import Any

# importing ours is an error from here on
sys.modules["model"] = sys.modules["tuner"] = None  # type: ignore[assignment]
warnings.filterwarnings("ignore", module="peft")

import numpy as np  # noqa: E402
import torch  # noqa: E402
from peft import LoraConfig, PeftModel, get_peft_model  # noqa: E402
from torch import Tensor, nn  # noqa: E402
from transformers import AutoModelForCausalLM  # noqa: E402
from transformers.models.llama import modeling_llama  # noqa: E402


class Masked(nn.Module):
    """Dropout by the masks of a file, one for each update, already divided by 1 − p."""

    def __init__(self, masks: Tensor) -> None:
        super().__init__()
        self.masks, self.update = masks, 0

    def forward(self, x: Tensor) -> Tensor:
        return x * self.masks[self.update].view(x.shape).to(x)


def exact_norm(self: Any, x: Tensor) -> Tensor:
    scaled: Tensor = x * torch.rsqrt(x.square().mean(-1, keepdim=True) + self.variance_epsilon)
    return self.weight * scaled


def exact_rotary(self: Any, x: Tensor, position_ids: Tensor) -> tuple[Tensor, Tensor]:
    """Angles in float64, rounded once."""
    theta, d = self.config.rope_parameters["rope_theta"], self.config.head_dim
    frequencies = theta ** -(torch.arange(0, d, 2, dtype=torch.float64) / d)
    angles = position_ids.double().unsqueeze(-1) * frequencies
    both = torch.cat([angles, angles], -1)
    return both.cos().float().to(x.dtype), both.sin().float().to(x.dtype)


def train(folder: Path, case: dict[str, Any]) -> dict[str, np.ndarray]:
    """Train one case; return the first and the last adapters and the losses."""
    torch.manual_seed(case["seed"])
    base = AutoModelForCausalLM.from_pretrained(folder, attn_implementation="sdpa")
    config = LoraConfig(
        r=case["rank"], lora_alpha=case["alpha"], target_modules=case["targets"],
        use_rslora=case["rslora"], task_type="CAUSAL_LM",
        lora_dropout=0.5 if case["masks"] else 0.0,
    )  # fmt: skip
    peft = get_peft_model(base, config).to(getattr(torch, case["dtype"])).train()
    data = np.load(folder / "data.npz")
    masked = []
    for name, module in peft.named_modules():
        if case["masks"] and name.endswith("lora_dropout"):
            # base_model.model.model.layers.0.self_attn.q_proj.lora_dropout
            key = f"{case['set']} {name.split('.')[4]}.{name.split('.')[6]}"
            module["default"] = Masked(torch.from_numpy(data[f"masks {key}"]))
            masked.append(module["default"])
    params = {n: p for n, p in peft.named_parameters() if p.requires_grad}
    first = {f"first {n}": p.detach().numpy().copy() for n, p in params.items()}
    groups = [
        {"params": [p for n, p in params.items() if f".{side}." in n], "lr": case["rate"] * factor}
        for side, factor in (("lora_A", 1.0), ("lora_B", case["factor"]))
    ]
    optimizer = torch.optim.AdamW(groups, betas=(0.9, 0.95), eps=1e-8, weight_decay=case["decay"])
    losses = []
    for update in range(case["updates"]):
        inputs, targets = (torch.from_numpy(data[n][update]) for n in ("inputs", "targets"))
        for module in masked:
            module.update = update
        logits = peft(input_ids=inputs).logits
        loss = nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    last = {f"last {n}": p.detach().numpy() for n, p in params.items()}
    return {"losses": np.array(losses), **first, **last}


def read(folder: Path) -> None:
    """Write the logits of an exported adapter over its base, and those of the merged export."""
    ids = torch.from_numpy(np.load(folder / "data.npz")["inputs"][0])
    base = AutoModelForCausalLM.from_pretrained(folder)
    merged = AutoModelForCausalLM.from_pretrained(folder / "merged")
    with torch.inference_mode():
        np.save(folder / "merged.npy", merged(ids).logits.numpy())
        adapted = PeftModel.from_pretrained(base, folder / "adapter").eval()
        np.save(folder / "adapter.npy", adapted(ids).logits.numpy())


def main(folder: Path) -> None:
    """Read the exports of a folder and of those in it, then train all its cases."""
    torch.set_num_threads(1)
    for data in folder.rglob("data.npz"):
        read(data.parent)
    modeling_llama.LlamaRMSNorm.forward = exact_norm
    modeling_llama.LlamaRotaryEmbedding.forward = exact_rotary
    for name, case in json.loads((folder / "cases.json").read_text(encoding="utf-8")).items():
        np.savez(folder / f"{name}.npz", **train(folder, case))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
