"""The tokenizer that a user gives, instead of one that is trained on the data."""

from __future__ import annotations

from model.errors import CorpusError
from model.spec.data import END_OF_TEXT, TokenizerConfig
from model.tokenizer.tokenizer import Tokenizer


def load_tokenizer(config: TokenizerConfig) -> Tokenizer | None:
    """Read the tokenizer of `config.file`; None if the tokenizer is to be trained.

    Raises:
        CorpusError: if it cannot be read, is of a kind that cannot be used, or has no
            `<|endoftext|>` to put between documents.
    """
    if config.file is None:
        return None
    try:
        made = Tokenizer.from_file(config.file)
    except OSError as error:
        raise CorpusError(
            f"tokenizer.file: cannot read {error.filename or config.file}: {error.strerror}; give "
            f"a tokenizer.json, or a folder that holds one"
        ) from error
    except ValueError as error:
        reason = str(error).removeprefix(f"{config.file}: ")
        raise CorpusError(f"tokenizer.file: {config.file} cannot be used: {reason}") from error
    if END_OF_TEXT.encode() not in made.vocab.values():
        raise CorpusError(
            f"tokenizer.file: {config.file} has no token {END_OF_TEXT}, which stands between "
            f"documents; add it to the tokenizer, or train one with it ('tuner tokenizer train')"
        )
    # Some formats do not say which tokens are special. By id, as they are saved: the fingerprint
    # must not depend on the order in which a file names them.
    ids = {token: i for i, token in made.vocab.items()}
    special = sorted({*made.special_tokens, END_OF_TEXT}, key=lambda token: ids[token.encode()])
    return Tokenizer(made.vocab, made.merges, special, made.pattern)


def vocab_size_of(config: TokenizerConfig) -> int:
    """Ids of a tokenizer: those of a given one, or the most that a trained one may have.

    Raises:
        CorpusError: as `load_tokenizer`.
    """
    given = load_tokenizer(config)
    return config.vocab_size if given is None else given.vocab_size
