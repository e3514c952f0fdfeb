"""BLEU score of translations, computed by sacrebleu."""

from __future__ import annotations

from collections.abc import Sequence


def bleu(translations: Sequence[str], references: Sequence[str]) -> float:
    """Return the corpus BLEU of translations against one reference each, in [0, 100].

    With sacrebleu's own defaults: case-sensitive, tokenizer 13a, exponential smoothing.

    Source: Papineni et al. 2002 (doi:10.3115/1073083.1073135); Post 2018 (arXiv:1804.08771).
    """
    import sacrebleu  # only encoder–decoders need it, and the import is slow

    return float(sacrebleu.corpus_bleu(list(translations), [list(references)]).score)
