"""Prompts of trained models as ids, and the ids that end their texts."""

from __future__ import annotations

from dataclasses import dataclass

from model.errors import CorpusError
from model.sources.chat_template import answer_of, ask
from model.spec.chat import ChatFormat
from model.spec.trial import TrialSpec
from model.tokenizer.tokenizer import Tokenizer


@dataclass(frozen=True)
class Prompt:
    """What a model reads before it writes.

    A model that was tuned on examples reads a prompt as it has read those of its examples: with a
    chat template as the message of a user, without one after the text that begins prompts.

    Attributes:
        text: the prompt; empty to begin a document.
        is_raw: True to read it as it is.
        system: message of the system before that of the user; None for none.
    """

    text: str
    is_raw: bool = False
    system: str | None = None

    def is_message(self, spec: TrialSpec) -> bool:
        """Return True if a model reads it as a message, so that it answers and does not go on."""
        chat = spec.data.chat
        return bool(chat and chat.template and self.text and not self.is_raw)

    def ids(self, spec: TrialSpec, tokenizer: Tokenizer) -> list[int]:
        """Return its token ids for a model.

        Raises:
            CorpusError: if there is a message of the system and the model reads no messages; or the
                chat template refuses them.
        """
        chat = spec.data.chat
        if self.system is not None and not self.is_message(spec):
            raise CorpusError(
                "a message of the system goes before a prompt to a model with a chat template that "
                "was tuned on examples; leave it out"
            )
        if chat is None or self.is_raw or not self.text:
            return tokenizer.encode(self.text)
        if chat.template is None:
            return tokenizer.encode(f"{chat.begin}{self.text}")
        said = [("system", self.system), ("user", self.text)]
        messages = [{"role": role, "content": text} for role, text in said if text is not None]
        return tokenizer.encode(ask(messages, chat, "the prompt"))


def end_ids(end_of_text: int, chat: ChatFormat | None, tokenizer: Tokenizer) -> tuple[int, ...]:
    """Return the ids that end a text: of documents, and with examples those that end answers.

    Args:
        end_of_text: id of the model that ends a document.
        chat: how the examples became text; None for a model of documents.
        tokenizer: tokenizer of the model.
    """
    ends = [end_of_text]
    if chat is not None:
        ends += tokenizer.encode(chat.end)[-1:]
        try:
            answer = answer_of(chat)
        except CorpusError:  # the template refuses such a chat
            answer = ""
        if answer.endswith(tokenizer.special_tokens):
            ends += tokenizer.encode(answer)[-1:]
    return tuple(dict.fromkeys(ends))
