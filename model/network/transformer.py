"""The language model: a stack of K decoder-only Transformers of one architecture.

`LanguageModel` is the computation, a function of named weights, so that the stack may keep them in
whatever memory layout is fastest. `TransformerLM` is its face as a torch module.

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
from model.network.attention import attend_to, of_each_sequence, within_documents
from model.network.block import Block, Sight
from model.network.dropout import Dropout
from model.network.head import Head
from model.network.layers import Weights, embedding
from model.network.norms import NORMS
from model.network.positions import POSITIONS
from model.randomness import truncated_normal
from model.spec.architecture import Architecture, Tower, parameter_shapes

_BOUND = 3.0  # initial weights are cut at three standard deviations


def initial_weight(
    seed: int, name: str, shape: tuple[int, ...], device: torch.device | str = "cpu"
) -> Tensor:
    """The weight that a trial starts from, a function of its seed and the weight's name.

    Gains are 1 and biases 0; an embedding is N(0, 1) and a matrix N(0, 2/(d_in + d_out)), both cut
    at three standard deviations. The table of the relative position bias is taken as a matrix.

    Returns:
        float32 of the given shape, on the device.

    Source: Glorot and Bengio 2010, equation 16, as a normal distribution.
    """
    if len(shape) == 1:
        return torch.full(shape, 0.0 if name.endswith(".bias") else 1.0, device=device)
    std = 1.0 if "_embeddings." in name else math.sqrt(2 / sum(shape))
    key, there = derive_key(seed, "weights", name), exact_device(torch.device(device))
    return truncated_normal(key, shape, std, _BOUND, there).to(device)


def document_numbers(ids: Tensor, end_of_text: int) -> Tensor:
    """Which document of its sequence each token belongs to, counted from the left.

    An end-of-text token belongs to the document that it opens, so that the first token of a text
    is predicted from it alone, as when text is generated from nothing.

    Args:
        ids: (K, B, T) int64.
        end_of_text: id of the token that ends a document.

    Returns:
        (K, B, T) int64.
    """
    return (ids == end_of_text).cumsum(-1)


class Trunk:
    """One tower of a model, from token ids to what its last norm gives.

    Args:
        architecture: what to compute; its choices are resolved here, once.
        tower: which of its towers.
        first_place: number of the tower's first layer in the model.
        input_place: number of the place where its embeddings are dropped.
    """

    def __init__(
        self, architecture: Architecture, tower: Tower, first_place: int = 0, input_place: int = 0
    ) -> None:
        a = architecture
        self.position = POSITIONS[a.position](a, tower)
        self._block = Block.of(a, tower, self.position)
        self.num_places = tower.n_layers * len(self._block.layers)
        self._first_place, self._input_place = first_place, input_place
        blocks = (f"{tower.prefix}layers.{i}." for i in range(tower.n_layers))
        # name of each block's weights in the block → in the model
        self._names = [
            {
                name.removeprefix(block): name
                for name in parameter_shapes(a)
                if name.startswith(block)
            }
            for block in blocks
        ]
        self._last_norm: Callable[[Weights, Tensor], Tensor] = lambda w, x: x
        if a.norm_placement == "pre":
            norm, name = NORMS[a.norm], f"{tower.prefix}ln_final"
            self._last_norm = lambda w, x: norm(w, name, x)

    def __call__(self, weights: Weights, ids: Tensor, sight: Sight, drop: Dropout) -> Tensor:
        """Token ids (K, B, T) to activations (K, B, T, D)."""
        x = embedding(weights["token_embeddings.weight"], ids)  # (K, B, T, D)
        x = self.position.at_input(weights, x, sight.at)
        if drop.embedding:
            x = drop.embedding(x, self._input_place)
        for number, names in enumerate(self._names):
            block = {short: weights[name] for short, name in names.items()}
            place = self._first_place + number * len(self._block.layers)
            x = self._block(block, x, sight, drop.residual, place)
        return self._last_norm(weights, x)

    def bias(self, weights: Weights, ids: Tensor) -> Tensor | None:
        """What positions add to the scores, (1 or KB, H, T, T); None for nothing."""
        bias = self.position.bias(weights, ids.shape[-1], ids.device)
        return None if bias is None else of_each_sequence(bias, ids.shape[1])


class LanguageModel:
    """The computation of one architecture without an encoder.

    Args:
        architecture: what to compute.
    """

    def __init__(self, architecture: Architecture) -> None:
        a = architecture
        self._trunk = Trunk(a, a.decoder)
        self._documents: Callable[[Tensor], Tensor | None] = (
            _one_document
            if a.attend_across_documents
            else lambda ids: document_numbers(ids, a.end_of_text)
        )
        self.head = Head.of(a)

    def __call__(
        self,
        weights: Weights,
        ids: Tensor,
        *,
        drop: Dropout | None = None,
        documents: Tensor | None = None,
    ) -> Tensor:
        """Logits of the next token at every position, (K, B, T, V); see `activations`."""
        return self.head(weights, self.activations(weights, ids, drop=drop, documents=documents))

    def activations(
        self,
        weights: Weights,
        ids: Tensor,
        *,
        drop: Dropout | None = None,
        documents: Tensor | None = None,
    ) -> Tensor:
        """What the head is given at every position.

        Args:
            weights: by the names of `parameter_shapes`, each with a leading K.
            ids: (K, B, T), int64 in [0, V).
            drop: what this tick drops; None drops nothing.
            documents: number of each token's document, (K, B, T): attention stops where it
                changes, while positions count on. None: as the architecture says.

        Returns:
            (K, B, T, D).
        """
        drop = drop or Dropout()
        mask = self._trunk.bias(weights, ids)
        documents = self._documents(ids) if documents is None else documents
        if documents is not None:
            mask = within_documents(documents, mask)
        sight = Sight(attend_to(mask, drop.attention))
        return self._trunk(weights, ids, sight, drop)


def _one_document(ids: Tensor) -> Tensor | None:
    return None


# Entries of an architecture that the constructor names itself, or that an encoder has.
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
    """Register a parameter under a dotted name, making the modules on the way."""
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
        seed: key of the initial weights, one for all slots or one each.
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
        if d_model % num_heads or not is_even:
            raise ValueError(
                f"d_model / num_heads must be a whole even number, got {d_model} / {num_heads}"
            )
        _check_choices(choices)
        # not validated: a module may be as small as one likes, which a trial may not
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
            weight = torch.stack([initial_weight(each, name, shape) for each in seeds])
            place_parameter(self, name, nn.Parameter(weight))

    @classmethod
    def of(cls, architecture: Architecture, weights: Mapping[str, Tensor]) -> Self:
        """A single model (K = 1) with given weights.

        Args:
            architecture: of a language model.
            weights: by the names of `parameter_shapes`, without K; they are copied.
        """
        model = cls.__new__(cls)
        nn.Module.__init__(model)
        model.architecture = architecture
        model._compute = LanguageModel(architecture)
        for name in parameter_shapes(architecture):
            place_parameter(model, name, nn.Parameter(weights[name].clone().unsqueeze(0)))
        return model

    def forward(self, ids: Tensor) -> Tensor:
        """Logits of the next token: ids (K, B, T) int64 → (K, B, T, V).

        Raises:
            ValueError: if T exceeds the context length.
        """
        a = self.architecture
        if ids.shape[-1] > a.context_length:
            raise ValueError(f"{ids.shape[-1]} tokens exceed the context of {a.context_length}")
        return self._compute(dict(self.named_parameters()), ids)
