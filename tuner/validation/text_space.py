"""The space of a first search of somebody's own text: it fits the text and the machine."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from model.sources.survey import Survey
from model.spec.architecture import Architecture
from model.spec.data import END_OF_TEXT, DataConfig, TokenizerConfig
from model.spec.derive import derive
from model.spec.trial import LARGEST_MICRO_BATCH, TrialSpec
from model.tokenizer.bpe import train_bpe
from model.tokenizer.tokenizer import Tokenizer
from tuner.conductor.clock import CLOCKS, SECONDS
from tuner.errors import TunerError

_TRIALS, _REPORTS, _BATCH = 24, 9, 16
_COMPLETE = 17  # complete trials whose tokens 24 trials with asha and the confirmation take
_SEARCH_SECONDS = 600  # of the first search on a CPU
_FEWEST_UPDATES = 48
_MOST_PASSES = 4  # more gain little (Muennighoff et al. 2023, arXiv:2305.16264)
_TOKENS_PER_WEIGHT = 20  # more gain little (Hoffmann et al. 2022, arXiv:2203.15556)
_FEWEST_PER_WEIGHT = 2  # with less, a smaller model is better
_SHORTEST_CONTEXT = 16
_HELD_OUT = 0.05
_FEWEST_BYTES = 2_000
_WIDEST_VOCABULARY = 32  # times d_model: else embedding and head are most of the model
_MANY_CHARACTERS = 1_000  # an alphabet such as the Chinese one needs a larger vocabulary
# Bytes of text up to which a vocabulary is enough.
_VOCABULARIES = (
    (200_000, 512), (2_000_000, 1_024), (20_000_000, 2_048), (200_000_000, 4_096),
    (2_000_000_000, 8_192),
)  # fmt: skip
_LARGEST_VOCABULARY = 16_384
# d_model, layers, heads, context; the smallest is that of the study lm.
_SIZES = ("d_model", "n_layers", "n_heads", "context_length")
_SHAPES = (
    (64, 2, 4, 64),
    (128, 4, 4, 128),
    (256, 6, 8, 256),
    (512, 8, 8, 512),
    (768, 12, 12, 1024),
)

_TEMPLATE = """\
# A first search of your own text. 'tuner validate --space {name}.yaml' explains it.
# {about}

name:        {name}                       # searches are called {name}-1, {name}-2, …
data:        {data}
tokenizer:   {{vocab_size: {vocab_size}}}             # byte-level BPE, trained on this text
model:       {model}  # {weights}

hyperparameters:
  # The ranges are those of the study lm, whose file says where they are from ('tuner init lm').
  α_max:     {{log: [1e-4, 3e-2]}}            # peak of the learning rate
  α_min:     {{fraction_of: α_max, log: [0.01, 0.5]}}
  T_warmup:  {{fraction_of: T_total, uniform: [0.0, 0.2]}}
  β1:        {{uniform: [0.8, 0.95]}}
  β2:        {{choice: [0.95, 0.98, 0.99, 0.999]}}
  λ:         {{log: [5e-3, 1.0]}}             # weight decay
  τ:         {{log: [0.25, 4.0]}}             # largest gradient norm
{dropout}  B:         {{choice: [8, 16, 32]}}          # sequences per update
  optimizer: adamw

budget:      {{tokens: {tokens:_}, reports: {reports}}}  # of one trial: {passes}
search:      {{trials: {trials}, sampler: tpe, scheduler: asha, seed: 0}}
confirm:     {{top: 2, seeds: 3}}             # the best two again with fresh seeds
objective:   {{metric: val_loss, mode: min}}  # on held-out text
"""
_DROPOUT = "  p_drop:    {choice: [0.0, 0.1, 0.2]}       # the text is read several times\n"


@dataclass(frozen=True)
class TextSpace:
    """A space for a text.

    Attributes:
        name: of the space.
        data: the text.
        vocab_size: of the tokenizer.
        bytes_per_token: measured with such a tokenizer on a sample.
        text_tokens: tokens of the training part, about.
        architecture: model of all trials.
        tokens: training tokens of a trial.
        seconds: expected time of the search on a CPU; None with a GPU.
    """

    name: str
    data: DataConfig
    vocab_size: int
    bytes_per_token: float
    text_tokens: int
    architecture: Architecture
    tokens: int
    seconds: float | None

    @property
    def passes(self) -> float:
        """How often a trial reads the text."""
        return self.tokens / self.text_tokens

    def text(self, about: str) -> str:
        """Return the file.

        Args:
            about: what the text is, for a comment.
        """
        a, config = self.architecture, self.data
        files = json.dumps(list(config.files or ()), ensure_ascii=False)
        fields = [
            f", {option}: {json.dumps(getattr(config, option), ensure_ascii=False)}"
            for option in ("field", "column")
            if getattr(config, option) != "text"
        ]
        return _TEMPLATE.format(
            name=self.name, about=about, data=f"{{files: {files}{''.join(fields)}}}",
            vocab_size=self.vocab_size, weights=f"{a.num_parameters:,} weights",
            model=f"{{{', '.join(f'{name}: {getattr(a, name)}' for name in _SIZES)}}}",
            dropout=_DROPOUT if self.passes > 2 else "", tokens=self.tokens, reports=_REPORTS,
            passes=f"the text {self.passes:.2g} times", trials=_TRIALS,
        )  # fmt: skip


def text_space(
    name: str, data: DataConfig, seen: Survey, cores: int, *, has_gpu: bool = False
) -> TextSpace:
    """Return a space that fits a text and a machine.

    On a CPU the model is the largest one that the search trains well in about ten minutes by the
    clock of `conductor.clock`; on a GPU the largest one that the text is enough for.

    Raises:
        TunerError: if the text is too short to search anything.
    """
    size = seen.total_bytes or seen.text_bytes
    if size < _FEWEST_BYTES:
        raise TunerError(
            f"the text has {size:,} bytes, and a search needs {_FEWEST_BYTES:,} at least; add text"
        )
    for shape in reversed(_SHAPES):
        vocab_size = min(_vocab_size(size, seen), _WIDEST_VOCABULARY * shape[0])
        ratio = _bytes_per_token(seen.sample, vocab_size)
        text_tokens = max(1, round((1 - _HELD_OUT) * size / ratio))
        architecture = _architecture(shape, vocab_size, text_tokens)
        per_token = _seconds_per_token(architecture)
        most = _TOKENS_PER_WEIGHT * architecture.num_parameters
        if not has_gpu:
            most = min(most, round(_SEARCH_SECONDS * cores / _COMPLETE / per_token))
        fewest = _FEWEST_UPDATES * _BATCH * architecture.context_length
        tokens = max(fewest, min(most, _MOST_PASSES * text_tokens))
        is_enough = min(tokens, text_tokens) >= _FEWEST_PER_WEIGHT * architecture.num_parameters
        if is_enough or shape is _SHAPES[0]:
            break
    tokens = int(float(f"{tokens:.2g}"))
    seconds = None if has_gpu else tokens * _COMPLETE * per_token / cores
    return TextSpace(name, data, vocab_size, ratio, text_tokens, architecture, tokens, seconds)


def _vocab_size(size: int, seen: Survey) -> int:
    enough = [vocabulary for most, vocabulary in _VOCABULARIES if size <= most]
    vocabulary = enough[0] if enough else _LARGEST_VOCABULARY
    return 2 * vocabulary if len(set(seen.sample)) > _MANY_CHARACTERS else vocabulary


@lru_cache(maxsize=8)
def _bytes_per_token(sample: str, vocab_size: int) -> float:
    """Return the bytes of a token of a tokenizer that is trained on the first half of a sample."""
    half = max(1, len(sample) // 2)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "sample.txt")
        path.write_text(sample[:half], encoding="utf-8", errors="replace", newline="")
        vocab, merges = train_bpe(path, vocab_size, [END_OF_TEXT], processes=1)
    rest = sample[half:] or sample
    tokenizer = Tokenizer(vocab, merges, [END_OF_TEXT])
    return max(1.0, len(rest.encode("utf-8", "replace")) / max(1, len(tokenizer.encode(rest))))


def _architecture(shape: Sequence[int], vocab_size: int, text_tokens: int) -> Architecture:
    """Return the architecture of a shape, with a context of which the held-out text has several."""
    sizes = dict(zip(_SIZES, shape, strict=True))
    while sizes["context_length"] > max(_SHORTEST_CONTEXT, _HELD_OUT * text_tokens / 4):
        sizes["context_length"] //= 2
    return Architecture.model_validate({"vocab_size": vocab_size, **sizes})


def _seconds_per_token(architecture: Architecture) -> float:
    """Return the expected time of a training token on a core."""
    length = architecture.context_length
    rows = derive(
        {"batch_size": _BATCH}, train_sequences=1, context_length=length, budget_tokens=100_000
    )
    spec = TrialSpec(
        hyperparameters=rows, architecture=architecture, data=DataConfig(),
        tokenizer=TokenizerConfig(), data_fingerprint="", tokenizer_fingerprint="",
        train_sequences=1, validation_sequences=max(1, 8_192 // length),
        micro_batch=min(_BATCH, LARGEST_MICRO_BATCH), report_tokens=12_000, seed=0,
    )  # fmt: skip
    return CLOCKS[SECONDS].per_token(spec) * 1e-12
