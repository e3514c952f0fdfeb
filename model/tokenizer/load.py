"""Loading of a tokenizer from a user's file, instead of training one on the data."""

from __future__ import annotations

import os
from collections.abc import Sequence

from model.errors import CorpusError, ForeignTokenizerError
from model.spec.data import TokenizerConfig
from model.tokenizer.library import LibraryTokenizer
from model.tokenizer.tokenizer import Tokenizer


def open_tokenizer(
    path: str | os.PathLike[str],
    special_tokens: Sequence[str] | None = None,
    pattern: str = "gpt2",
) -> Tokenizer:
    """Read a tokenizer as `Tokenizer.from_file`, by the package `tokenizers` if ours cannot be it.

    Raises:
        OSError: if the file cannot be read.
        ValueError: if the file is not in a known format, or needs the package, which is not
            installed.
    """
    try:
        return Tokenizer.from_file(path, special_tokens, pattern)
    except ForeignTokenizerError as error:
        return LibraryTokenizer.read(path, str(error))


def load_tokenizer(config: TokenizerConfig) -> Tokenizer | None:
    """Load the tokenizer of `config.file`; return None if there is no file, to train one.

    Raises:
        CorpusError: if the file cannot be read, is of an unsupported kind, or has no
            `<|endoftext|>` to end documents.
    """
    if config.file is None:
        return None
    try:
        tokenizer = open_tokenizer(config.file)
    except OSError as error:
        raise CorpusError(
            f"tokenizer.file: cannot read {error.filename or config.file}: {error.strerror}; give "
            f"a tokenizer.json, or a folder that holds one"
        ) from error
    except ValueError as error:
        reason = str(error).removeprefix(f"{config.file}: ")
        raise CorpusError(f"tokenizer.file: {config.file} cannot be used: {reason}") from error
    end_of_text, is_ours = tokenizer.end_of_text, not isinstance(tokenizer, LibraryTokenizer)
    if end_of_text.encode() not in tokenizer.vocab.values() or not (
        is_ours or len(tokenizer.encode_numpy(end_of_text)) == 1
    ):
        raise CorpusError(
            f"tokenizer.file: {config.file} has no token {end_of_text}, which stands between "
            f"documents; add it to the tokenizer, or train one with it ('tuner tokenizer train')"
        )
    if not is_ours:
        return tokenizer
    # The end of text is added because some formats do not name special tokens. They are sorted by
    # id, as in a saved file, so that the fingerprint does not depend on their order in the file.
    ids = {token: i for i, token in tokenizer.vocab.items()}
    special = sorted(
        {*tokenizer.special_tokens, end_of_text}, key=lambda token: ids[token.encode()]
    )
    return Tokenizer(tokenizer.vocab, tokenizer.merges, special, tokenizer.pattern, end_of_text)


def vocab_size_of(config: TokenizerConfig) -> int:
    """Return the number of ids of a tokenizer: of the file, or the limit for a trained one.

    Raises:
        CorpusError: as `load_tokenizer`.
    """
    tokenizer = load_tokenizer(config)
    return config.vocab_size if tokenizer is None else tokenizer.vocab_size
