"""The Transformer trainer: a stack of models, the engine that steps it, and their parts.

Names are imported when they are first used, so that `import model` stays fast and processes that
only pass specifications on never load torch.
"""

from importlib import import_module
from typing import Any

_HOME = {
    "Architecture": "spec.architecture",
    "Corpus": "corpus.corpus",
    "CorpusError": "errors",
    "DataConfig": "spec.data",
    "generate": "generation.generate",
    "GenerationSettings": "generation.settings",
    "get_batch": "corpus.corpus",
    "prepare": "corpus.prepare",
    "TokenizerConfig": "spec.data",
    "train_bpe": "tokenizer.bpe",
    "Tokenizer": "tokenizer.tokenizer",
    "CheckpointError": "errors",
    "load_checkpoint": "checkpoints.module",
    "load_exported": "exchange.torch_state",
    "save_checkpoint": "checkpoints.module",
    "Engine": "engine.engine",
    "FractionOf": "spec.symbol",
    "Hyperparameters": "spec.hyperparameters",
    "SYMBOL_TABLE": "spec.hyperparameters",
    "derive": "spec.derive",
    "embedding": "network.layers",
    "linear": "network.layers",
    "multihead_self_attention": "network.attention",
    "rmsnorm": "network.norms",
    "rope": "network.positions",
    "scaled_dot_product_attention": "network.attention",
    "silu": "network.feed_forward",
    "softmax": "network.layers",
    "swiglu": "network.feed_forward",
    "transformer_block": "network.block",
    "clip_grads_": "network.losses",
    "cross_entropy": "network.losses",
    "AdamW": "optimizers.adamw",
    "Report": "engine.report",
    "Status": "engine.report",
    "lr_cosine_schedule": "spec.schedules",
    "InitFrom": "spec.trial",
    "TrialSpec": "spec.trial",
    "Stack": "stack.stack",
    "TransformerLM": "network.transformer",
    "TransformerPair": "network.encoder_decoder",
}

__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    """Import a public name from the module that defines it."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return __all__
