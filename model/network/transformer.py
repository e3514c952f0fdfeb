"""Language model: a stack of K decoder-only Transformers of one architecture.

`LanguageModel` computes with named weights as arguments, so that the stack can choose their memory
layout. `TransformerLM` is the same model as a torch module.

K = slots in a stack, B = sequences, T = tokens, D = width, V = vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, Literal, Self, get_args, get_origin

import torch
from torch import Tensor, nn

from model.device.precision import exact_device
from model.keys import derive_key
from model.network.attention import attend_to, observed, of_each_sequence, within_documents
from model.network.block import AttentionContext, Block, Observe
from model.network.dropout import Dropout
from model.network.head import Head
from model.network.layers import Weights, embedding
from model.network.lora import SCALE, AdaptedBlock
from model.network.norms import NORMS
from model.network.positions import POSITIONS
from model.randomness import truncated_normal
from model.spec.architecture import Architecture, adapter_shapes, parameter_shapes
from model.spec.choices import Tower
from model.spec.multipliers import initial_std
from model.spec.parameter_names import LORA_A, LORA_B

_BOUND = 3.0  # initial weights are cut at three standard deviations


def initial_weight(
    seed: int,
    name: str,
    shape: tuple[int, ...],
    device: torch.device | str = "cpu",
    std: float | None = None,
) -> Tensor:
    """Return the initial weight of a trial, a function of its seed and the weight's name.

    Gains are 1 and biases 0; an embedding is N(0, 1) and a matrix N(0, 2/(d_in + d_out)), both cut
    at three standard deviations. The table of the relative position bias counts as a matrix.

    Args:
        seed: seed of the trial.
        name: name of the weight.
        shape: its shape.
        device: device of the result.
        std: standard deviation of a matrix or an embedding, instead of the one above.

    Returns:
        float32 of `shape`, on the device.

    Source: Glorot and Bengio 2010, equation 16, as a normal distribution.
    """
    if len(shape) == 1:
        return torch.full(shape, 0.0 if name.endswith(".bias") else 1.0, device=device)
    if std is None:
        std = 1.0 if "_embeddings." in name else math.sqrt(2 / sum(shape))
    key, exact = derive_key(seed, "weights", name), exact_device(torch.device(device))
    return truncated_normal(key, shape, std, _BOUND, exact).to(device)


def document_numbers(ids: Tensor, end_of_text: int) -> Tensor:
    """Return the number of each token's document in its sequence, counted from the left.

    An end-of-text token belongs to the document after it: the first token of a text is predicted
    from the end-of-text token alone, as in generation without a prompt.

    Args:
        ids: (K, B, T) int64.
        end_of_text: id of the token that ends a document.

    Returns:
        (K, B, T) int64.
    """
    return (ids == end_of_text).cumsum(-1)


class Trunk:
    """One tower of a model, from token ids to the output of its last norm.

    Args:
        architecture: architecture of the model.
        tower: tower of the architecture.
        first_layer: index of the tower's first layer in the model.
        input_mask: index of the dropout mask of the tower's embeddings.
        products: dtype to which linear layers convert their operands; None for no conversion.
    """

    def __init__(
        self,
        architecture: Architecture,
        tower: Tower,
        first_layer: int = 0,
        input_mask: int = 0,
        products: torch.dtype | None = None,
    ) -> None:
        a = architecture
        self._products = products
        self.position = POSITIONS[a.position](a, tower)
        self._block = Block.of(a, tower, self.position)
        self.num_layers = tower.n_layers * len(self._block.layers)
        self._first_layer, self._input_mask = first_layer, input_mask
        blocks = (f"{tower.prefix}layers.{i}." for i in range(tower.n_layers))
        # for each block: name of a weight in the block → name in the model
        self._names = [
            {
                name.removeprefix(block): name
                for name in (*parameter_shapes(a), *adapter_shapes(a))
                if name.startswith(block)
            }
            for block in blocks
        ]
        self._last_norm: Callable[[Weights, Tensor], Tensor] = lambda w, x: x
        if a.norm_placement == "pre":
            norm, name = NORMS[a.norm](a.norm_eps), f"{tower.prefix}ln_final"
            self._last_norm = lambda w, x: norm(w, name, x)

    def __call__(
        self,
        weights: Weights,
        ids: Tensor,
        context: AttentionContext,
        drop: Dropout,
        observe: Observe | None = None,
    ) -> Tensor:
        """Return the activations (K, B, T, D) of token ids (K, B, T)."""
        x = embedding(weights["token_embeddings.weight"], ids)  # (K, B, T, D)
        x = self.position.at_input(weights, x, context.positions)
        if drop.embedding:
            x = drop.embedding(x, self._input_mask)
        for number, names in enumerate(self._names):
            block: Weights = {
                short: self._operand(weights[name], short)
                for short, name in names.items()
                if name in weights
            }
            if SCALE in weights:
                block = AdaptedBlock(block, weights[SCALE], drop.lora, number)
            layer_index = self._first_layer + number * len(self._block.layers)
            x = self._block(block, x, context, drop.residual, layer_index, observe)
        if observe:
            observe("stream", x)
        return self._last_norm(weights, x)

    def _operand(self, w: Tensor, name: str) -> Tensor:
        """Return a weight of a block, a matrix in the dtype of products, but not one of LoRA."""
        is_matrix = w.dim() == 3 and LORA_A not in name and LORA_B not in name  # (K, o, i)
        return w if self._products is None or not is_matrix else w.to(self._products)

    def bias(self, weights: Weights, ids: Tensor) -> Tensor | None:
        """Return the positions' bias of the scores, (1 or KB, H, T, T); None for no bias."""
        bias = self.position.bias(weights, ids.shape[-1], ids.device)
        return None if bias is None else of_each_sequence(bias, ids.shape[1])


class LanguageModel:
    """Computes a model without an encoder.

    Args:
        architecture: architecture of the model.
        products: dtype to which linear layers and head convert their operands, while everything
            else keeps its own; None for no conversion.

    Source: Micikevicius et al. 2018 (arXiv:1710.03740), with bfloat16 instead of float16.
    """

    def __init__(self, architecture: Architecture, products: torch.dtype | None = None) -> None:
        a = architecture
        self._trunk = Trunk(a, a.decoder, products=products)
        self._documents: Callable[[Tensor], Tensor | None] = (
            _one_document
            if a.attend_across_documents
            else lambda ids: document_numbers(ids, a.end_of_text)
        )
        self.head = Head.of(a, products)

    def __call__(self, weights: Weights, ids: Tensor) -> Tensor:
        """Return the logits of the next token at every position, (K, B, T, V).

        Without dropout; for the arguments see `activations`.
        """
        return self.head(weights, self.activations(weights, ids))

    def activations(
        self,
        weights: Weights,
        ids: Tensor,
        begins: Tensor | None = None,
        *,
        drop: Dropout | None = None,
        documents: Tensor | None = None,
        observe: Observe | None = None,
    ) -> Tensor:
        """Return the head's input at every position.

        Args:
            weights: by the names of `parameter_shapes`, each with a leading K. With LoRA these are
                frozen, with a leading 1, and there are those of `adapter_shapes` and `lora.SCALE`.
            ids: (K, B, T), int64 in [0, V).
            begins: place of the first token of each token's example, (K, B, T), if a sequence has
                several: attention stays within an example, and positions count from its first
                token. None: a sequence is read as one text.
            drop: dropout masks of this tick; None drops nothing.
            documents: number of each token's document, (K, B, T): attention stays within a
                document, while positions count on. None: as the architecture says.
            observe: receives the scores of attention, what layers add to the residual stream
                (by the names of their norms), and the stream before its last norm.

        Returns:
            (K, B, T, D).
        """
        drop = drop or Dropout()
        mask, positions = self._trunk.bias(weights, ids), None
        if begins is not None:
            documents = begins
            positions = torch.arange(ids.shape[-1], device=ids.device) - begins  # (K, B, T)
        documents = self._documents(ids) if documents is None else documents
        if documents is not None:
            mask = within_documents(documents, mask)
        attend = attend_to(mask, drop.attention)
        attend = observed(attend, observe) if observe else attend
        context = AttentionContext(attend, positions=positions)
        return self._trunk(weights, ids, context, drop, observe)


def _one_document(ids: Tensor) -> Tensor | None:
    return None


# Entries of an architecture that are arguments of the constructor, or belong to an encoder.
_NO_CHOICES = {
    "vocab_size", "context_length", "d_model", "n_layers", "n_heads", "d_ff", "rope_theta",
    "n_encoder_layers", "source_length",
}  # fmt: skip


def _check_choices(choices: Mapping[str, Any]) -> None:
    unknown = choices.keys() - (Architecture.model_fields.keys() - _NO_CHOICES)
    if unknown:
        raise ValueError(f"unknown choices: {', '.join(sorted(unknown))}")
    for name, value in choices.items():
        annotation = Architecture.model_fields[name].annotation
        if get_origin(annotation) is Literal and value not in get_args(annotation):
            raise ValueError(
                f"{name} must be one of {', '.join(get_args(annotation))}, got {value!r}"
            )


def place_parameter(root: nn.Module, name: str, parameter: nn.Parameter) -> None:
    """Register a parameter under a dotted name; make the modules in between."""
    *path, leaf = name.split(".")
    module = root
    for part in path:
        if not hasattr(module, part):
            module.add_module(part, nn.Module())
        module = getattr(module, part)
    module.register_parameter(leaf, parameter)


class TransformerLM(nn.Module):
    """K Transformer language models as one torch module; K = 1 for a single one.

    Args:
        k: slots.
        vocab_size: V.
        context_length: longest sequence, in tokens.
        d_model: D.
        num_layers: blocks.
        num_heads: attention heads.
        d_ff: inner width of SwiGLU.
        rope_theta: base of the rotary angles.
        seed: seed of the initial weights, one for all slots or one per slot.
        choices: further entries of `Architecture` by name, such as `position="alibi"`.

    Raises:
        ValueError: if the sizes do not fit, a choice is unknown, or `seed` is a sequence without
            k entries.
    """

    def __init__(
        self,
        k: int,
        vocab_size: int,
        context_length: int,
        d_model: int,
        num_layers: int,
        num_heads: int,
        d_ff: int,
        rope_theta: float = 10_000.0,
        *,
        seed: int | tuple[int, ...] = 0,
        **choices: Any,
    ) -> None:
        super().__init__()
        is_even = choices.get("position", "rope") != "rope" or d_model // num_heads % 2 == 0
        if not choices.get("head_width") and (d_model % num_heads or not is_even):
            raise ValueError(
                f"d_model / num_heads must be a whole even number, got {d_model} / {num_heads}"
            )
        _check_choices(choices)
        # model_construct() skips validation: a module may be smaller than a trial
        self.architecture = Architecture.model_construct(
            vocab_size=vocab_size,
            context_length=context_length,
            d_model=d_model,
            n_layers=num_layers,
            n_heads=num_heads,
            d_ff=d_ff,
            rope_theta=rope_theta,
            **{"n_kv_heads": num_heads, **choices},
        )
        self._compute = LanguageModel(self.architecture)
        seeds = (seed,) * k if isinstance(seed, int) else seed
        if len(seeds) != k:
            raise ValueError(f"seed needs {k} entries, one per slot, got {len(seeds)}")
        for name, shape in parameter_shapes(self.architecture).items():
            std = initial_std(self.architecture, name)
            weight = torch.stack(
                [initial_weight(slot_seed, name, shape, std=std) for slot_seed in seeds]
            )
            place_parameter(self, name, nn.Parameter(weight))

    @classmethod
    def of(cls, architecture: Architecture, weights: Mapping[str, Tensor]) -> Self:
        """Return a single model (K = 1) with copies of weights.

        Args:
            architecture: architecture of a language model.
            weights: by the names of `parameter_shapes`, without K.
        """
        model = cls.__new__(cls)
        nn.Module.__init__(model)
        model.architecture = architecture
        model._compute = LanguageModel(architecture)
        for name in parameter_shapes(architecture):
            place_parameter(model, name, nn.Parameter(weights[name].clone().unsqueeze(0)))
        return model

    def forward(self, ids: Tensor) -> Tensor:
        """Return the logits of the next token: ids (K, B, T) int64 → (K, B, T, V).

        Raises:
            ValueError: if T exceeds the context length.
        """
        a = self.architecture
        if ids.shape[-1] > a.context_length:
            raise ValueError(f"{ids.shape[-1]} tokens exceed the context of {a.context_length}")
        return self._compute(dict(self.named_parameters()), ids)
