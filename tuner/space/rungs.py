"""Rungs of successive halving: numbers of training tokens at which trials are compared."""

from __future__ import annotations


def rungs(report: int, eta: int, budget: int) -> list[int]:
    """Return all rungs below the full budget: one report, η reports, η² reports, ….

    Args:
        report: training tokens between reports.
        eta: η, ratio of neighbouring rungs.
        budget: training tokens of a complete trial.

    Source: Li et al. 2018 (arXiv:1810.05934), section 3.
    """
    tokens: list[int] = []
    rung = report
    while rung < budget:
        tokens.append(rung)
        rung *= eta
    return tokens
