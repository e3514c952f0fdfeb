"""Data of an engine, of any kind, as a dataset."""

from __future__ import annotations

from model.corpus.dataset import Dataset, TextDataset, Tokens
from model.corpus.examples import ExampleDataset
from model.corpus.pairs import PairDataset

Data = Tokens | PairDataset | ExampleDataset


def as_dataset(data: Data) -> Dataset:
    """Return data of an engine as a dataset."""
    return data if isinstance(data, PairDataset | ExampleDataset) else TextDataset(data)
