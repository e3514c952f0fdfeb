"""The survey of a source: its split, and the pre-tokens that a tokenizer is trained on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

from model.corpus.shards import in_batches, utf8_size
from model.corpus.split import DocumentSplit, Split, is_one_document, place, position_split
from model.errors import CorpusError
from model.parallel import ordered_map, processes_for
from model.progress import OnProgress, Progress
from model.sources.registry import documents, source_bytes
from model.spec.data import DataConfig
from model.tokenizer.bpe import PretokenCounts, count_pretokens
from model.tokenizer.pretokenizer import special_pattern

# Texts → pre-token counts, and the bytes of the texts.
Count = Callable[[Sequence[str]], tuple[Counter[str], int]]

_COUNTED_CHARACTERS = 1 << 20


class Work(NamedTuple):
    """Size of the source, number of processes, and the progress callback."""

    num_bytes: int | None
    processes: int
    on_progress: OnProgress

    @classmethod
    def on(cls, data: DataConfig, processes: int | None, on_progress: OnProgress) -> Work:
        """Measure a source and choose the number of processes."""
        num_bytes = source_bytes(data)
        return cls(num_bytes, processes_for(num_bytes, processes), on_progress)


class _Survey:
    """Counts the documents of a source on both sides of the split limit, as they are read.

    Attributes:
        lowest: smallest place of any document.
        train: number of training documents.
        held_out: number of validation documents.
    """

    def __init__(self, data: DataConfig, split: DocumentSplit) -> None:
        self._data, self._limit = data, split.limit
        self.lowest = 1.0
        self.train = self.held_out = 0

    def training_texts(self) -> Iterator[str]:
        """Yield the texts of the training documents."""
        previous = None
        for document in documents(self._data):
            where = place(document.name)
            if document.name != previous:
                previous = document.name
                self.lowest = min(self.lowest, where)
                self.train += where > self._limit
                self.held_out += where <= self._limit
            if where > self._limit:
                yield document.text


def survey(data: DataConfig, count: Count, work: Work) -> tuple[Split, dict[bytes, int]]:
    """Return the split of a source and the pre-token counts of its training part."""
    if data.split_by == "position" or (_may_be_one_text(data) and is_one_document(data)):
        split = position_split(data)
        parts = split.parts(documents(data))
        texts = (piece.text for part, piece in parts if part == "train")
        return split, count_texts(texts, count, work)
    return _survey_documents(data, count, work)


def _may_be_one_text(data: DataConfig) -> bool:
    """Return True if a single document shall be split by position.

    Not with a separator of the user's own, which was meant to occur.
    """
    separator = DataConfig.model_fields["separator"].default
    return bool(
        data.files
        and not (data.pairs or data.examples)
        and data.split_by is None
        and data.separator == separator
    )


def _survey_documents(
    data: DataConfig, count: Count, work: Work
) -> tuple[DocumentSplit, dict[bytes, int]]:
    """Return the split by document and the pre-token counts of the training documents.

    Raises:
        CorpusError: if one of the parts would have no document.
    """
    split = DocumentSplit(data.validation_fraction)
    counted = _Survey(data, split)
    counts = count_texts(counted.training_texts(), count, work)
    if not counted.held_out and counted.train > 1:
        # Of few documents, none may lie below the fraction: then the lowest one is held out.
        split = DocumentSplit(counted.lowest)
        counted = _Survey(data, split)
        counts = count_texts(counted.training_texts(), count, work)
    if counted.train + counted.held_out == 0:
        raise CorpusError(
            f"data: there are no documents, only separators ({data.separator!r}); give files "
            f"with text between them, or another separator"
        )
    noun = data.noun
    if counted.train + counted.held_out == 1:
        files = 'files, another separator (for instance separator: "\\n\\n"), or split_by: position'
        raise CorpusError(
            f"data: the split is by {noun}, and there is only one; give several "
            f"{files if noun == 'document' else f'{noun}s'}"
        )
    if not counted.train:
        position = ", or set split_by: position" if noun == "document" else ""
        raise CorpusError(
            f"data: every {noun} falls into the validation part; lower validation_fraction"
            f"{position}"
        )
    return split, counts


def count_texts(texts: Iterable[str], count: Count, work: Work) -> dict[bytes, int]:
    """Count the pre-tokens of some texts."""
    done = 0
    with PretokenCounts() as counts:
        batches = in_batches(texts, len, _COUNTED_CHARACTERS)
        for counted, num_bytes in ordered_map(count, batches, work.processes):
            counts.add(counted)
            done += num_bytes
            work.on_progress(Progress("counting", done, work.num_bytes, "B"))
        return counts.most_frequent()


def count_batch(
    texts: Sequence[str], pattern: str, special_tokens: Sequence[str]
) -> tuple[Counter[str], int]:
    """Return the pre-token counts of some texts, and the bytes of the texts."""
    special = special_pattern(special_tokens)
    parts = [part for text in texts for part in special.split(text)[::2]] if special else texts
    return count_pretokens(parts, pattern), sum(map(utf8_size, texts))


def measure_batch(texts: Sequence[str]) -> tuple[Counter[str], int]:
    """Return the bytes of some texts without counts: a given tokenizer needs no training."""
    return Counter(), sum(map(utf8_size, texts))
