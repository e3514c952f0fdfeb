"""The fixed Transformer trainer: a stack of models, an engine that turns it, and their parts.

Names are imported when they are first used, so that `import model` stays quick and the processes
that only pass specifications around never load torch.
"""

from importlib import import_module
from typing import Any

_HOME = {
    "Architecture": "architecture",
    "Corpus": "corpus",
    "CorpusError": "data_config",
    "DataConfig": "data_config",
    "generate": "generation",
    "GenerationSettings": "generation_settings",
    "get_batch": "corpus",
    "prepare": "preparation",
    "TokenizerConfig": "tokenizer_config",
    "train_bpe": "bpe",
    "Tokenizer": "tokenizer",
    "CheckpointError": "checkpoint",
    "load_checkpoint": "checkpoint",
    "load_exported": "export.plain",
    "save_checkpoint": "checkpoint",
    "Engine": "engine",
    "FractionOf": "hyperparameters",
    "Hyperparameters": "hyperparameters",
    "SYMBOL_TABLE": "hyperparameters",
    "derive": "derivation",
    "embedding": "layers",
    "linear": "layers",
    "multihead_self_attention": "attention",
    "rmsnorm": "norms",
    "rope": "positions",
    "scaled_dot_product_attention": "attention",
    "silu": "feed_forward",
    "softmax": "layers",
    "swiglu": "feed_forward",
    "transformer_block": "block",
    "clip_grads_": "losses",
    "cross_entropy": "losses",
    "AdamW": "optimizers",
    "Report": "report",
    "Status": "report",
    "lr_cosine_schedule": "schedules",
    "InitFrom": "spec",
    "TrialSpec": "spec",
    "Stack": "stack",
    "TransformerLM": "transformer",
    "TransformerPair": "encoder_decoder",
}

__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    """Import a public name from its home."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return __all__
