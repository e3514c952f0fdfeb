"""Export to a plain state dict with specification and tokenizer, and its loader.

The format expresses every architecture. Shapes are those of `parameter_shapes`, without K.
"""

from __future__ import annotations

import os
from pathlib import Path

from model.errors import ExportError
from model.exchange.format import Format, TrainedModel
from model.network.encoder_decoder import TransformerPair
from model.network.transformer import TransformerLM
from model.spec.architecture import parameter_shapes
from model.spec.trial import TrialSpec
from model.tokenizer.library import LIBRARY
from model.tokenizer.load import open_tokenizer
from model.tokenizer.pretokenizer import PATTERNS
from model.tokenizer.tokenizer import Tokenizer

WEIGHTS_FILE, SPEC_FILE = "model.safetensors", "spec.json"
_LONGEST_REASON = 200  # letters of an error that may quote what it could not read


def load_exported(
    folder: str | os.PathLike[str],
) -> tuple[TransformerLM | TransformerPair, Tokenizer]:
    """Load an export of `--format torch`.

    Args:
        folder: of the export.

    Returns:
        The model, K = 1, which is a `TransformerPair` if it has an encoder; and its tokenizer.

    Raises:
        ExportError: if the folder is not such an export, or is damaged.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    folder = Path(folder)
    try:
        spec = TrialSpec.model_validate_json((folder / SPEC_FILE).read_text(encoding="utf-8"))
        weights = load_file(folder / WEIGHTS_FILE)
        tokenizer = open_tokenizer(folder)
    except (OSError, SafetensorError, ValueError) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0][:_LONGEST_REASON]
        reason = reason.encode("unicode_escape").decode()
        raise ExportError(f"{folder} is not an export of the format torch: {reason}") from error
    a = spec.architecture
    if {name: tuple(w.shape) for name, w in weights.items()} != parameter_shapes(a):
        raise ExportError(f"{folder / WEIGHTS_FILE} does not fit {SPEC_FILE}")
    model_class = TransformerPair if a.n_encoder_layers else TransformerLM
    return model_class.of(a, weights), tokenizer


def _write(model: TrainedModel, folder: Path) -> None:
    from safetensors.torch import save_file

    weights = {
        name: model.weights[name].contiguous() for name in parameter_shapes(model.architecture)
    }
    save_file(weights, folder / WEIGHTS_FILE, {"format": "pt"})
    (folder / SPEC_FILE).write_text(model.spec.model_dump_json(indent=2) + "\n", encoding="utf-8")
    model.tokenizer.save(folder, "huggingface")


def _usage(model: TrainedModel) -> str:
    call = (
        "model(targets, sources)  # (1, B, T) and (1, B, source_length) token ids"
        if model.architecture.n_encoder_layers
        else 'model(torch.tensor([[tokenizer.encode("Once upon a time")]]))'
    )
    return f"""\
```python
import torch
from model import load_exported

model, tokenizer = load_exported(".")
logits = {call}
```

`{WEIGHTS_FILE}` is a plain state dict of float32 tensors, and `{SPEC_FILE}` is the \
specification of its trial; weights and activations of the module have a first dimension for the \
number of models, which is 1.
"""


PLAIN = Format(
    what="a state dict of torch",
    obstacles=lambda a: [],
    patterns=(*PATTERNS, LIBRARY),
    needs=None,
    write=_write,
    usage=_usage,
)
