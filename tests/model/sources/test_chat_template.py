"""Chats as text and ids, against transformers, which runs once in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any
from unicodedata import normalize

import pytest

from model.errors import CorpusError
from model.sources.chat_template import render
from model.sources.examples import example_text
from model.spec.chat import ChatFormat
from model.tokenizer.bpe import train_bpe
from model.tokenizer.spans import encode_spans
from model.tokenizer.tokenizer import Tokenizer
from tests.model.sources.templates import CHATML, MARKED, TEMPLATES
from tests.model.tokenizer.test_families import TEXTS, sentencepiece

SCRIPT = Path(__file__).with_name("chats_of_transformers.py")
MARKS = ["<|im_start|>", "<|im_end|>", "<|eot_id|>", "<|start_header_id|>", "<|end_header_id|>",
         "<think>", "</think>", "<s>", "</s>"]  # fmt: skip
TOKENS = {"bos_token": "<s>", "eos_token": "</s>"}


def turns(*contents: str, system: str = "") -> list[dict[str, str]]:
    roles = ["user", "assistant"] * len(contents)
    named = [{"role": r, "content": c} for r, c in zip(roles, contents, strict=False)]
    return [{"role": "system", "content": system}, *named] if system else named


CHATS = {
    "one": turns("What is naïve?", "L'été où — 日本語 ½.\n"),
    "two": turns("1 + 1?", "2\n\n  ok", "und?  ", "<think>\nhm\n</think>\n\nDrei.", system="Kurz."),
    "composed": turns("e\u0301 A\u030a", "\u1112\u1161\u11ab e\u0301 <|im_end|> x", "y", "A\u030a"),
    "code": turns(TEXTS["code"][:600], TEXTS["any"][:900], TEXTS["prose"][:300], "é"),
}
KINDS = ("qwen2", "gpt2", "every")


def read(messages: Any, template: str, **more: Any) -> tuple[str, list[str]]:
    """The text of a chat, and its answers."""
    row = example_text({"messages": messages, **more}, "data: a.jsonl line 1")
    chat = ChatFormat(template=template, tokens=tuple(TOKENS.items()), end="</s>")
    text, answers = render(row, chat, "data: a.jsonl line 1")
    return text, [text[begin:end] for begin, end in answers]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Tokenizers: of bytes, one of them with NFC; and of characters with a space before texts."""
    folder = tmp_path_factory.mktemp("tokenizers")
    (folder / "text.txt").write_text(normalize("NFC", TEXTS["code"] + TEXTS["prose"]))
    trained = train_bpe(folder / "text.txt", 700, [])
    made = {"every": sentencepiece(folder, "every")}
    for kind in KINDS[:2]:
        (path,) = Tokenizer(*trained, MARKS, kind).save(folder / kind, "huggingface")
        contents = json.loads(path.read_text(encoding="utf-8"))
        path.write_text(json.dumps({**contents, "post_processor": None}), encoding="utf-8")
        made[kind] = path
    return made


@pytest.fixture(scope="module")
def theirs(files: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[Any, Any]:
    """(template, chat, tokenizer, True for a prompt) → text, ids and mask of transformers."""
    keys = [
        (template, chat, kind, asks)
        for template in TEMPLATES for chat in CHATS for kind in KINDS for asks in (False, True)
    ]  # fmt: skip
    folder = tmp_path_factory.mktemp("chats")
    chats = [
        [str(files[kind]), TEMPLATES[template], TOKENS, CHATS[chat][: -1 if asks else None], asks]
        for template, chat, kind, asks in keys
    ]
    (folder / "chats.json").write_text(json.dumps(chats))
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONPATH": ""}
    subprocess.run([sys.executable, "-P", str(SCRIPT), str(folder)], check=True, cwd=folder,
                   env=environment)  # fmt: skip
    return dict(zip(keys, json.loads((folder / "written.json").read_text()), strict=True))


@pytest.mark.slow
def test_chats_equal_those_of_transformers(theirs: Any, files: dict[str, Path]) -> None:
    """Text and ids of all templates; where answers are marked, the mask, too."""
    tokenizers = {kind: Tokenizer.from_file(path) for kind, path in files.items()}
    for (template, chat, kind, asks), (text, ids, mask) in theirs.items():
        if asks:
            continue
        row = example_text({"messages": CHATS[chat]}, "")
        form = ChatFormat(template=TEMPLATES[template], tokens=tuple(TOKENS.items()), end="</s>")
        ours, answers = render(row, form, "")
        assert ours == text
        encoded, marks = encode_spans(tokenizers[kind], ours, answers)
        assert encoded.tolist() == ids, (template, chat, kind)
        if template == "marked":
            assert marks.astype(int).tolist() == mask, (chat, kind)
            # and so without the marks: an answer follows the prompt for it
            plain = MARKED.replace("{%- generation %}", "").replace("{%- endgeneration %}", "")
            unmarked = render(row, ChatFormat(template=plain, end="</s>"), "")
            assert unmarked == (ours, answers)


@pytest.mark.slow
def test_the_last_answer_follows_the_prompt_of_transformers(theirs: Any) -> None:
    for (template, chat, kind, asks), (prompt, _, _) in theirs.items():
        if asks and kind == KINDS[0]:
            text, answers = read(CHATS[chat], TEMPLATES[template])
            end = text.index(answers[-1], len(prompt)) + len(answers[-1])
            assert text[: len(prompt)] == prompt
            assert text[len(prompt) : end] == answers[-1], (template, chat)
            assert text[end:].strip() == ""


def test_answers_end_with_the_token_that_ends_a_turn() -> None:
    two = turns("a", "b", "c", "d")
    assert read(two, CHATML)[1] == ["b<|im_end|>", "d<|im_end|>"]
    assert read(two, TEMPLATES["llama2"])[1] == [" b </s>", " d </s>"]
    assert read(two, TEMPLATES["llama3"])[1] == ["b<|eot_id|>", "d<|eot_id|>"]
    # the last answer is written in another way than it was: the others cannot be found
    assert read(two, TEMPLATES["qwen3"])[1] == ["<think>\n\n</think>\n\nd<|im_end|>"]


def test_prompt_of_messages_is_not_learned() -> None:
    for template in (CHATML, MARKED):
        chat = ChatFormat(template=template, end="</s>")
        row = {
            "prompt": turns("a", "b", "c"),
            "completion": [{"role": "assistant", "content": "d"}],
        }
        text, answers = render(example_text(row, ""), chat, "")
        assert [text[begin:end] for begin, end in answers] == ["d<|im_end|>"]


def test_other_forms() -> None:
    base = ChatFormat(begin="<s>", end="</s>")

    def parts(row: dict[str, Any], chat: ChatFormat) -> tuple[str, str]:
        text, ((begin, end),) = render(example_text(row, ""), chat, "")
        assert end == len(text.rstrip("\n"))
        return text[:begin], text[begin:end]

    asked = {"instruction": "Add.", "input": "1, 2", "output": "3"}
    assert parts({"prompt": "a ", "completion": "b"}, base) == ("<s>a ", "b</s>")
    assert parts({"prompt": "a ", "completion": "b</s>"}, base) == ("<s>a ", "b</s>")
    prompt, answer = parts(asked, base)
    assert prompt.endswith("### Instruction:\nAdd.\n\n### Input:\n1, 2\n\n### Response:\n")
    assert answer == "3</s>"
    assert "Input" not in parts({"instruction": "Add.", "output": "3"}, base)[0]
    prompt, answer = parts(asked, ChatFormat(template=CHATML, end="</s>"))
    assert prompt.endswith("user\nAdd.\n\n1, 2<|im_end|>\n<|im_start|>assistant\n")
    assert answer == "3<|im_end|>"


def test_templates_read_calls_of_tools_and_leave_out_null() -> None:
    call = {"function": {"name": "f", "arguments": {"x": "<é>"}}}
    messages = [*turns("a"), {"role": "assistant", "content": None, "tool_calls": [call]}]
    text, answers = read(messages, TEMPLATES["llama3"], tools=[call])
    assert answers == ['{"name": "f", "arguments": {"x": "<é>"}}<|eot_id|>']
    assert "None" not in text


ESCAPES = {
    "attributes": "{{ messages.__class__.__mro__ }}",
    "code of a macro": "{{ raise_exception.__globals__['json'] }}",
    "format": "{{ '{0.__class__.__mro__}'.format(messages) }}",
    "change of the chat": "{{ messages.append(1) }}",
    "namespace": "{% set ns = namespace() %}{% set ns.__init__ = 1 %}",
    "the extension": "{{ self._TemplateReference__context.environment.extensions }}",
}


@pytest.mark.parametrize("template", ESCAPES.values(), ids=ESCAPES)
def test_sandbox_stops_templates(template: str) -> None:
    with pytest.raises(CorpusError, match=r"data: a.jsonl line 1: the chat template was stopped"):
        read(CHATS["one"], template)


REFUSED = {
    "raises": ("{{ raise_exception('only two turns, please') }}", "line 1: the chat template "
               "refuses it: only two turns, please"),
    "undefined": ("{{ messages[0].content.missing.more }}", "line 1: the chat template refuses it"),
    "division": ("{{ 1 / 0 }}", "line 1: the chat template refuses it: division by zero"),
    "type": ("{{ 1 + 'a' }}", "line 1: the chat template refuses it: unsupported operand"),
    "endless": ("{% for i in range(999999999) %}x{% endfor %}", "line 1: the chat template refuses "
                "it: Range too big"),
    "the time": ("{{ strftime_now('%Y') }}", "'strftime_now' is undefined"),
    "syntax": ("{{ messages", "the chat template of the model cannot be read: line 1: "),
    "no tag": ("{% secret %}", "cannot be read: line 1: Encountered unknown tag 'secret'"),
    "no answer": ("{{ messages[0].content }}", "no answer can be found"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_template_that_fails_is_named(name: str) -> None:
    template, message = REFUSED[name]
    with pytest.raises(CorpusError) as caught:
        read(CHATS["one"], template)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_chat_without_template_is_refused() -> None:
    row = example_text({"messages": CHATS["one"]}, "")
    with pytest.raises(
        CorpusError, match="line 3 has messages, and the model has no chat template"
    ):
        render(row, ChatFormat(end="</s>"), "data: a.jsonl line 3")
