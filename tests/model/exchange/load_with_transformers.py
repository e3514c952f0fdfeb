"""Run by test_export.py, apart: what transformers makes of exports, with nothing of ours."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

# importing ours is an error from here on
sys.modules["model"] = sys.modules["tuner"] = None  # type: ignore[assignment]

import numpy as np  # noqa: E402
import torch  # noqa: E402
from transformers import (  # noqa: E402
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedTokenizerFast,
)
from transformers.modeling_gguf_pytorch_utils import load_gguf_checkpoint  # noqa: E402


def load_gguf(export: Path) -> Any:
    """What from_pretrained(gguf_file=…) does, which wants the package accelerate."""
    model = AutoModelForCausalLM.from_config(
        AutoConfig.from_pretrained(export, gguf_file="model.gguf")
    )
    read = load_gguf_checkpoint(export / "model.gguf", return_tensors=True, model_to_load=model)
    model.load_state_dict(read["tensors"])
    return model.eval()


def main(folder: Path) -> None:
    """Logits, ids and texts of each export in a folder."""
    torch.set_num_threads(1)
    ids = torch.from_numpy(np.load(folder / "ids.npy"))
    whole = (folder / "text.txt").read_bytes().decode()
    said = {}
    for export in sorted(path for path in folder.iterdir() if path.is_dir()):
        file = {"gguf_file": "model.gguf"} if export.name.startswith("gguf") else {}
        model = load_gguf(export) if file else AutoModelForCausalLM.from_pretrained(export).eval()
        # as its README says
        says = (export / "README.md").read_text(encoding="utf-8")
        loader = PreTrainedTokenizerFast if "PreTrainedTokenizerFast" in says else AutoTokenizer
        tokenizer = loader.from_pretrained(export, **file)
        with torch.inference_mode():
            np.save(export.with_suffix(".logits.npy"), model(ids).logits.numpy())
            written = model.generate(
                ids[:1, :5], do_sample=False, max_new_tokens=20, max_length=None,
                pad_token_id=model.config.eos_token_id,
            )  # fmt: skip
        # all of a text once for each format, as the tokenizer of all is the same
        text = whole if export.name.endswith("default") else whole[-20_000:]
        encoded = tokenizer(text, add_special_tokens=True, verbose=False).input_ids
        np.save(export.with_suffix(".ids.npy"), np.array(encoded))
        said[export.name] = {
            "class": type(model).__name__,
            "is_fast": tokenizer.is_fast,
            "decodes": tokenizer.decode(encoded) == text,
            "eos": tokenizer.eos_token,
            "longest": tokenizer.model_max_length,
            "written": written[0, 5:].tolist(),
            "config": AutoConfig.from_pretrained(export, **file).to_dict(),
            "sampling": model.generation_config.to_diff_dict(),
        }
    (folder / "said.json").write_text(json.dumps(said), encoding="utf-8")


main(Path(sys.argv[1]))
