"""Loading of a pretrained folder: `python -m parts.lora.loading FOLDER [MEGABYTES DTYPE]`.

With a size, writes a Llama of random weights in two shards, of so many megabytes as float32;
without one, imports the folder as a search does: configuration, tensors, their digest. Prints
seconds, the size of the weights as float32, and the growth of the process at its peak, with the
pages of the mapped files, as JSON.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from pathlib import Path

WIDTH = 1_024
PER_LAYER = 4 * WIDTH * WIDTH + 3 * WIDTH * 4 * WIDTH  # weights, without gains


def write(folder: Path, megabytes: int, dtype: str) -> None:
    """Write a folder as the hub has it."""
    import torch
    from safetensors.torch import save_file

    from model.exchange.families import FAMILIES
    from model.spec.architecture import Architecture, parameter_shapes

    layers = max(1, round(megabytes * 1e6 / 4 / PER_LAYER))
    a = Architecture(
        d_model=WIDTH, n_layers=layers, n_heads=16, d_ff=4 * WIDTH, vocab_size=1_000,
        context_length=128,
    )  # fmt: skip
    family, generator = FAMILIES["llama"], torch.Generator().manual_seed(0)
    weights = {
        name: torch.randn(shape, generator=generator).to(getattr(torch, dtype))
        for name, shape in parameter_shapes(a).items()
    }
    exported = [*family.export(a, weights).items()]
    middle, index = len(exported) // 2, {}
    for number, part in enumerate((exported[:middle], exported[middle:]), 1):
        name = f"model-{number:05}-of-00002.safetensors"
        save_file(dict(part), folder / name)
        index |= dict.fromkeys(dict(part), name)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index}))
    (folder / "config.json").write_text(json.dumps(family.config(a)), encoding="utf-8")


def load(folder: Path) -> dict[str, float]:
    """Import the folder; return what it took beside a process that has imported torch."""
    import torch  # noqa: F401 - its memory is not that of the weights

    from model.exchange.pretrained import Pretrained

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    begun, spent = time.perf_counter(), time.process_time()
    start, tensors = Pretrained.open(folder).start()
    seconds, of_processor = time.perf_counter() - begun, time.process_time() - spent
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert start.sha256
    return {
        "seconds": seconds, "processor_seconds": of_processor,
        "bytes": sum(tensor.nbytes for tensor in tensors.values()),
        "memory_bytes": (after - before) * 1024,
    }  # fmt: skip


if __name__ == "__main__":
    at, *size = sys.argv[1:]
    if size:
        write(Path(at), int(size[0]), size[1])
    else:
        sys.stdout.write(json.dumps(load(Path(at))) + "\n")
