"""Attention of a GPU, computed by the functions of a CPU: torch calls others on each device."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

aten = torch.ops.aten


def efficient_attention(
    q: Tensor, k: Tensor, v: Tensor, attn_mask: Tensor | None = None, dropout_p: float = 0.0,
    is_causal: bool = False, scale: float | None = None, enable_gqa: bool = False,
) -> Any:  # fmt: skip
    """Attend as a GPU does where it can; NotImplemented where the C++ code falls back on a CPU."""
    if enable_gqa or (attn_mask is not None and attn_mask.requires_grad):
        return NotImplemented
    if attn_mask is not None and attn_mask.dtype == torch.bool:
        attn_mask = torch.zeros_like(attn_mask, dtype=q.dtype).masked_fill(~attn_mask, -torch.inf)
    return aten._scaled_dot_product_efficient_attention(
        q, k, v, attn_mask, True, dropout_p, is_causal, scale=scale
    )[0]


def _attend(
    q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, with_sums: bool, dropout: float = 0.0,
    is_causal: bool = False, *, scale: float | None = None,
) -> tuple[Tensor, ...]:  # fmt: skip
    y, sums = aten._scaled_dot_product_flash_attention_for_cpu(
        q, k, v, dropout, is_causal, attn_mask=bias, scale=scale
    )
    return y, sums, torch.zeros((), dtype=torch.int64), torch.zeros((), dtype=torch.int64)


def _attend_backward(
    slope: Tensor, q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, y: Tensor, sums: Tensor,
    seed: Tensor, offset: Tensor, dropout: float, needed: list[bool], is_causal: bool = False,
    *, scale: float | None = None,
) -> tuple[Tensor | None, ...]:  # fmt: skip
    slopes = aten._scaled_dot_product_flash_attention_for_cpu_backward(
        slope, q, k, v, y, sums, dropout, is_causal, attn_mask=bias, scale=scale
    )
    return *slopes, None


KERNELS: dict[str, Callable[..., Any]] = {
    "_scaled_dot_product_efficient_attention": _attend,
    "_scaled_dot_product_efficient_attention_backward": _attend_backward,
}
