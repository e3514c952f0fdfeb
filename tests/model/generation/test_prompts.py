"""What a model reads of a prompt, and what ends its text."""

from __future__ import annotations

from typing import Any

import pytest

from model.errors import CorpusError
from model.generation.prompts import Prompt, end_ids
from model.sources.chat_template import ask, render
from model.sources.examples import example_text
from model.spec.chat import ChatFormat
from model.spec.data import END_OF_TEXT, DataConfig
from model.spec.trial import TrialSpec
from model.tokenizer.tokenizer import Tokenizer
from tests.conftest import MakeSpec
from tests.model.sources.templates import CHATML, LLAMA2, MARKED, TEMPLATES

SPECIAL = [END_OF_TEXT, "<|im_start|>", "<|im_end|>", "<s>", "</s>"]
TOKENS = {"bos_token": "<s>", "eos_token": "</s>"}


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    bytes_ = {byte + len(SPECIAL): bytes([byte]) for byte in range(256)}
    vocab = {i: token.encode() for i, token in enumerate(SPECIAL)} | bytes_
    return Tokenizer(vocab, [], SPECIAL)


def tuned(make_spec: MakeSpec, template: str | None, **entries: Any) -> TrialSpec:
    """A trial that was tuned on examples."""
    chat = ChatFormat(template=template, tokens=TOKENS, end="</s>", **entries)
    data = DataConfig(files=("a.jsonl",), examples=True, chat=chat)
    return make_spec().model_copy(update={"data": data})


def test_prompt_is_the_message_of_a_user(make_spec: MakeSpec, tokenizer: Tokenizer) -> None:
    spec = tuned(make_spec, CHATML)

    def read(*prompt: Any) -> str:
        return tokenizer.decode(Prompt(*prompt).ids(spec, tokenizer))

    asked = "<|im_start|>user\n2?<|im_end|>\n<|im_start|>assistant\n"
    assert read("2?") == f"<|im_start|>system\nYou are helpful.<|im_end|>\n{asked}"
    assert read("2?", False, "Short.") == f"<|im_start|>system\nShort.<|im_end|>\n{asked}"
    assert read("2?", True) == "2?"
    assert read("") == ""
    assert Prompt("2?").ids(make_spec(), tokenizer) == tokenizer.encode("2?")
    texts = Prompt("2?").ids(tuned(make_spec, None, begin="<s>"), tokenizer)
    assert tokenizer.decode(texts) == "<s>2?"


@pytest.mark.parametrize("template", TEMPLATES.values(), ids=TEMPLATES)
def test_prompt_is_that_of_training(template: str) -> None:
    """What is read before an answer of an example, unless the template writes others before it."""
    chat = ChatFormat(template=template, tokens=TOKENS, end="</s>")
    messages = [{"role": "user", "content": "2?"}, {"role": "assistant", "content": "22"}]
    row = example_text({"messages": messages}, "a.jsonl line 1")
    text, ((begin, _),) = render(row, chat, "a.jsonl line 1")
    assert text.startswith(prompt := ask(messages[:1], chat, "the prompt"))
    assert text[len(prompt) : begin].strip() == ""


@pytest.mark.parametrize(
    ("template", "end", "expected"),
    [
        (CHATML, "<|im_end|>", [0, 2]),
        (CHATML, "</s>", [0, 4, 2]),  # an eos_token that does not end a turn
        (MARKED, "</s>", [0, 4, 2]),
        (LLAMA2, "</s>", [0, 4]),
        ("{{ messages[0].content }}{{ messages[1].content }}", "</s>", [0, 4]),
        ("{{ raise_exception('no') }}", "</s>", [0, 4]),
        (None, "</s>", [0, 4]),
    ],
)
def test_texts_end_as_documents_and_answers(
    template: str | None, end: str, expected: list[int], tokenizer: Tokenizer
) -> None:
    chat = ChatFormat(template=template, tokens=TOKENS, end=end)
    assert [*end_ids(0, chat, tokenizer)] == expected
    assert end_ids(0, None, tokenizer) == (0,)


def test_messages_that_cannot_be_read_are_refused(
    make_spec: MakeSpec, tokenizer: Tokenizer
) -> None:
    reads_none = tuned(make_spec, None), make_spec()
    for spec in reads_none:
        with pytest.raises(CorpusError, match="a model with a chat template"):
            Prompt("2?", system="Short.").ids(spec, tokenizer)
    for prompt in (Prompt("", system="Short."), Prompt("2?", is_raw=True, system="Short.")):
        with pytest.raises(CorpusError, match="a model with a chat template"):
            prompt.ids(tuned(make_spec, CHATML), tokenizer)
    refusing = tuned(make_spec, "{{ raise_exception('roles must alternate') }}")
    message = "the prompt: the chat template refuses it: roles must alternate"
    with pytest.raises(CorpusError, match=message):
        Prompt("2?").ids(refusing, tokenizer)
