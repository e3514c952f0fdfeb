"""Models between a proxy and its target, along the width and along the depth."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from model.spec.architecture import Architecture
from tuner.space.settings import Proxy

Axis = Literal["width", "depth"]

_SMALLEST_WIDTH = 1 / 8  # share of the target's; a proxy may be narrower
_LEAST_DEPTH = 2  # blocks, unless the proxy has fewer


@dataclass(frozen=True)
class FamilyMember:
    """A model of a family.

    Attributes:
        axis: what differs between the members that are compared.
        size: its d_model or n_layers.
        architecture: its architecture.
    """

    axis: Axis
    size: int
    architecture: Architecture


def family(target: Architecture, proxy: Proxy) -> list[FamilyMember]:
    """Return models of several widths at the depth of a proxy, and of several depths at its width.

    Each size is half of the next; a size that cannot be divided is left out. The last member of an
    axis has the target's size. All have the same target, and none of the rules for batch and
    tokens, which do not matter in a few updates.

    Args:
        target: architecture of the target.
        proxy: shares of the proxy.
    """
    members: list[FamilyMember] = []
    for axis in ("width", "depth"):
        smallest = getattr(proxy, axis)
        if axis == "width":
            smallest = min(smallest, _SMALLEST_WIDTH)
        else:
            smallest = min(smallest, _LEAST_DEPTH / target.n_layers)
        shares = sorted({1.0, getattr(proxy, axis), *_halves(smallest)})
        members += [m for share in shares if (m := _member(target, proxy, axis, share))]
    return members


def _halves(smallest: float) -> list[float]:
    """Return 1/2, 1/4 … down to a share."""
    shares, share = [], 0.5
    while share >= smallest * 0.999:
        shares.append(share)
        share /= 2
    return shares


def _member(target: Architecture, proxy: Proxy, axis: Axis, share: float) -> FamilyMember | None:
    shares = {"width": proxy.width, "depth": proxy.depth, axis: share}
    sizes = Proxy(**shares, decay_exponent=proxy.decay_exponent)
    try:
        a = sizes.shrink(target)
    except ValueError:
        return None
    return FamilyMember(axis, a.d_model if axis == "width" else a.n_layers, a)
