"""Whether an engine's data are those of a specification."""

from __future__ import annotations

from model.corpus.dataset import Dataset
from model.corpus.examples import ExampleDataset
from model.corpus.pairs import PairDataset
from model.sources.choices import ChoiceSet
from model.spec.trial import TrialSpec


def check_fits(
    spec: TrialSpec, train: Dataset, validation: Dataset, choices: ChoiceSet | None
) -> None:
    """Check that the data of an engine have the kind and the sequences of a specification.

    Raises:
        ValueError: if they do not.
    """
    a = spec.architecture
    if (a.n_encoder_layers > 0) != isinstance(train, PairDataset):
        raise ValueError("an encoder–decoder needs an engine with pairs, and only it does")
    asked = spec.data.examples, spec.data.multiple_choice is not None
    if asked != (isinstance(train, ExampleDataset), choices is not None):
        raise ValueError("the engine needs examples and questions as the specification has")
    for name, num_sequences, data in (
        ("training", spec.train_sequences, train),
        ("validation", spec.validation_sequences, validation),
    ):
        if num_sequences > data.num_sequences(a):
            raise ValueError(
                f"the specification reads {num_sequences} {name} sequences, and the engine's data "
                f"have {data.num_sequences(a)}"
            )
