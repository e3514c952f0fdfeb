"""BLEU, by sacrebleu."""

from __future__ import annotations

from collections.abc import Sequence


def bleu(written: Sequence[str], wanted: Sequence[str]) -> float:
    """Corpus BLEU of texts against one reference each, in [0, 100].

    sacrebleu's own defaults: case-sensitive, tokenizer 13a, exponential smoothing.

    Source: Papineni et al. 2002 (doi:10.3115/1073083.1073135); Post 2018 (arXiv:1804.08771).
    """
    import sacrebleu  # only for encoder–decoders, and it takes a moment

    return float(sacrebleu.corpus_bleu(list(written), [list(wanted)]).score)
