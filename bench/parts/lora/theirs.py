"""One LoRA trial of transformers and PEFT: `python -m parts.lora.theirs FOLDER SIZE TICKS DTYPE`.

Prints what `parts.lora.ours` does. The loop is the plain one: AdamW, no logging, no evaluation.
"""

from __future__ import annotations

import contextlib
import json
import sys
import time
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM

from parts.lora.setting import ALPHA, RANK, RATE, SIZES, WARM_UP


def adapted(
    folder: Path, rate: float, alpha: float, device: str = "cpu"
) -> tuple[Any, torch.optim.Optimizer]:
    """Load the base with adapters, and make their optimizer."""
    torch.manual_seed(0)
    base = AutoModelForCausalLM.from_pretrained(folder, attn_implementation="sdpa")
    config = LoraConfig(
        r=RANK, lora_alpha=alpha, task_type="CAUSAL_LM", target_modules="all-linear"
    )
    network = get_peft_model(base, config).train().to(device)
    optimizer = torch.optim.AdamW(
        [p for p in network.parameters() if p.requires_grad], lr=rate, betas=(0.9, 0.95),
        weight_decay=0.1, fused=True,
    )  # fmt: skip
    return network, optimizer


def rows_at(tokens: torch.Tensor, places: Iterable[int], length: int) -> torch.Tensor:
    """Return sequences with the token after each, (B, T + 1)."""
    return torch.stack([tokens[i : i + length + 1] for i in places])


def update(network: Any, optimizer: torch.optim.Optimizer, rows: torch.Tensor) -> float:
    """Train on some sequences; return their loss."""
    logits = network(input_ids=rows[:, :-1], use_cache=False).logits
    loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1).float(), rows[:, 1:].flatten())
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    optimizer.step()
    return loss.item()


def main(folder: Path, size: str, ticks: int, dtype: str, device: str = "cpu") -> dict[str, object]:
    """Train a trial for some ticks, and return what it took."""
    torch.set_num_threads(1)
    model, batch = SIZES[size]
    length = model["context_length"]
    network, optimizer = adapted(folder, RATE, ALPHA, device)
    tokens = torch.from_numpy(np.load(folder / "tokens.npy").astype(np.int64))
    draw = np.random.default_rng(0)
    low = dtype == "mixed_bfloat16"
    begun, started = time.process_time(), time.perf_counter()
    losses = []
    for tick in range(WARM_UP + ticks):
        if tick == WARM_UP:
            begun, started = time.process_time(), time.perf_counter()
        at = draw.integers(len(tokens) - length - 1, size=batch)
        rows = rows_at(tokens, at, length).to(device)
        with (
            torch.autocast(device.partition(":")[0], torch.bfloat16)
            if low
            else contextlib.nullcontext()
        ):
            losses.append(update(network, optimizer, rows))
    seconds, wall = time.process_time() - begun, time.perf_counter() - started
    mean = sum(losses[WARM_UP:]) / ticks
    return {"tokens": ticks * batch * length, "seconds": seconds, "wall": wall, "loss": mean}


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    _, at, name, number, kind, *where = sys.argv
    sys.stdout.write(json.dumps(main(Path(at), name, int(number), kind, *where)) + "\n")
