"""Examples as text: chat templates rendered as transformers renders them, and where answers are.

Templates come from the folders of strangers. They run in jinja2's sandbox, on plain values of JSON,
and learn neither the time nor anything of the machine: an example is a function of its row.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache
from typing import Any, NamedTuple

import jinja2
from jinja2 import nodes
from jinja2.exceptions import SecurityError
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace
from typing_extensions import override

from model.errors import CorpusError
from model.spec.chat import ChatFormat

_HAS_MARKS = re.compile(r"\{%-?\s*generation\s*-?%\}")
_LONGEST_REASON = 200

# Prompts of models without a chat template. Source: Taori et al. 2023, Stanford Alpaca, README.
_ALPACA = (
    "Below is an instruction that describes a task{}. Write a response that appropriately "
    "completes the request.\n\n### Instruction:\n{}\n\n{}### Response:\n"
)

Spans = list[tuple[int, int]]


class ExampleText(NamedTuple):
    """An example as text.

    Attributes:
        text: the text; special tokens are spelled out.
        answers: begin and end of each answer in it, in characters, in order.
    """

    text: str
    answers: Spans


def render(example: str, chat: ChatFormat, where: str) -> ExampleText:
    """Return an example as text.

    Args:
        example: JSON of `example_text`.
        chat: format of the model.
        where: file and line, the beginning of an error message.

    Raises:
        CorpusError: if the template is missing, cannot be read, or raises; or an answer cannot be
            found in its text.
    """
    row = json.loads(example)
    if "instruction" in row:
        row = _instruction(row, chat)
    if "messages" not in row:
        prompt = f"{chat.begin}{row['prompt']}"
        answer = row["completion"].removesuffix(chat.end) + chat.end
        return ExampleText(prompt + answer, [(len(prompt), len(prompt) + len(answer))])
    if chat.template is None:
        raise CorpusError(
            f"{where} has messages, and the model has no chat template; give prompt and completion "
            f"instead, or take a model that was made for chats"
        )
    with _refusing(where):
        rendered = _chat(row, chat)
    answers = [(begin, end) for begin, end in rendered.answers if rendered.text[begin:end].strip()]
    if not answers:
        raise CorpusError(
            f"{where}: no answer can be found in what the chat template writes of it; mark answers "
            f"in the template by {{% generation %}}"
        )
    return rendered._replace(answers=answers)


def ask(messages: Sequence[Mapping[str, str]], chat: ChatFormat, where: str) -> str:
    """Return the text after which a model writes its answer to messages.

    Args:
        messages: each with a `role` and a `content`; the last one is of a user.
        chat: format of the model, with a template.
        where: what the messages are, the beginning of an error message.

    Raises:
        CorpusError: if the template cannot be read, or raises.
    """
    with _refusing(where):
        write, _ = _writer(chat, None)
        return write(messages, asks=True)


def answer_of(chat: ChatFormat) -> str:
    """Return an answer as the chat template writes it, with what ends it; empty without a template.

    Raises:
        CorpusError: as `render`.
    """
    if chat.template is None:
        return ""
    said = [{"role": role, "content": "1"} for role in ("user", "assistant")]
    text, answers = render(json.dumps({"messages": said}), chat, "an answer")
    begin, end = answers[-1]
    return text[begin:end]


@contextmanager
def _refusing(where: str) -> Iterator[None]:
    """Raise what a template raises as CorpusError."""
    try:
        yield
    except SecurityError as error:
        raise CorpusError(
            f"{where}: the chat template was stopped, it tried what templates may not: "
            f"{_reason(error)}"
        ) from error
    except jinja2.TemplateSyntaxError as error:
        raise CorpusError(
            f"the chat template of the model cannot be read: line {error.lineno}: {_reason(error)}"
        ) from error
    except (jinja2.TemplateError, ArithmeticError, TypeError, ValueError, LookupError,
            AttributeError, RecursionError, MemoryError) as error:  # fmt: skip
        raise CorpusError(f"{where}: the chat template refuses it: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text[:_LONGEST_REASON]


def _instruction(row: Mapping[str, str], chat: ChatFormat) -> dict[str, Any]:
    """Return an instruction as a chat; as Alpaca's prompt if the model has no template."""
    instruction, context, output = row["instruction"], row.get("input", ""), row["output"]
    if chat.template is not None:
        asked = f"{instruction}\n\n{context}" if context else instruction
        question, answer = {"role": "user", "content": asked}, {"role": "assistant"}
        return {"messages": [question, {**answer, "content": output}]}
    with_input = ", paired with an input that provides further context" if context else ""
    shown = f"### Input:\n{context}\n\n" if context else ""
    return {"prompt": _ALPACA.format(with_input, instruction, shown), "completion": output}


# chats -------------------------------------------------------------------------------------------


def _chat(row: Mapping[str, Any], chat: ChatFormat) -> ExampleText:
    messages, learned = row["messages"], row.get("learned", 0)
    write, marks = _writer(chat, row.get("tools"))
    before = len(write(messages[:learned], asks=True)) if learned else 0
    text = write(messages)
    if _HAS_MARKS.search(chat.template or ""):
        return ExampleText(text, [span for span in marks.spans if span[0] >= before])
    ends = [token for token in (*dict(chat.tokens).values(), chat.end) if token]
    places = [i for i, each in enumerate(messages) if i >= learned and each["role"] == "assistant"]
    found = [_answer(text, messages, place, write, ends) for place in places]
    if any(span is None for span in found):  # written in another way if others follow
        found = [_last_answer(text, messages[: places[-1]], write, ends)]
    return ExampleText(text, [span for span in found if span is not None])


def _writer(chat: ChatFormat, tools: Any) -> tuple[Callable[..., str], _Marks]:
    """Return the function that writes messages by the template, and the marks of its last text."""
    template, marks = _compiled(chat.template or "")

    def write(messages: Sequence[Any], *, asks: bool = False) -> str:
        marks.clear()
        for block in template.generate(
            messages=messages, tools=tools, documents=None, add_generation_prompt=asks,
            **dict(chat.tokens),
        ):  # fmt: skip
            marks.blocks.append(block)  # one by one: a mark counts what was written before it
        return "".join(marks.blocks)

    return write, marks


def _answer(
    text: str,
    messages: Sequence[Any],
    place: int,
    write: Callable[..., str],
    ends: Sequence[str],
) -> tuple[int, int] | None:
    """Return where the answer of a message is: between the prompt for it and its end."""
    prompt, until = write(messages[:place], asks=True), write(messages[: place + 1])
    if not (text.startswith(until) and until.startswith(prompt)):
        return None
    return len(prompt), _end(text, len(prompt), len(until), ends)


def _last_answer(
    text: str, before: Sequence[Any], write: Callable[..., str], ends: Sequence[str]
) -> tuple[int, int] | None:
    """Return where the last answer is, if what is written of the others depends on it."""
    prompt = write(before, asks=True)
    if text.startswith(prompt) and len(text) > len(prompt):
        return len(prompt), _end(text, len(prompt), len(text), ends)
    return None


def _end(text: str, begin: int, end: int, ends: Sequence[str]) -> int:
    """Leave out the white space that a template writes after the token at the end of an answer."""
    short = text[begin:end].rstrip()
    return begin + len(short) if short.endswith((*ends, "|>")) else end


class _Marks(NamedTuple):
    """Where `{% generation %}` was written since the last `clear`, and the text before it."""

    blocks: list[str]
    spans: Spans

    def clear(self) -> None:
        self.blocks.clear()
        self.spans.clear()


class _Generation(Extension):
    """`{% generation %} … {% endgeneration %}`, around what the assistant writes.

    Source: the class AssistantTracker of transformers.
    """

    tags = {"generation"}  # noqa: RUF012 - as jinja2 has it

    def __init__(self, environment: jinja2.Environment) -> None:
        super().__init__(environment)
        self.marks = _Marks([], [])

    @override
    def parse(self, parser: Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.CallBlock(self.call_method("_mark"), [], [], body).set_lineno(line)

    def _mark(self, caller: Callable[[], str]) -> str:
        written = caller()
        begin = sum(map(len, self.marks.blocks))
        self.marks.spans.append((begin, begin + len(written)))
        return written


class _OpenNamespace(Namespace):
    """A namespace of templates without names that begin with an underscore."""

    def __setitem__(self, name: str, value: Any) -> None:
        if name.startswith("_"):
            raise SecurityError(f"a namespace has no entry {name!r}")
        super().__setitem__(name, value)


@lru_cache(maxsize=4)
def _compiled(template: str) -> tuple[jinja2.Template, _Marks]:
    """Compile a template as transformers does, but without the present time."""
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, loopcontrols]
    )
    environment.filters["tojson"] = _to_json
    environment.globals.update(
        raise_exception=_raise, namespace=_OpenNamespace, dict=lambda *a, **k: dict(*a, **k)
    )
    extension = environment.extensions[_Generation.identifier]
    assert isinstance(extension, _Generation)
    return environment.from_string(template), extension.marks


def _raise(message: str) -> None:
    raise jinja2.TemplateError(message)


def _to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """Write JSON without jinja2's escapes for HTML."""
    return json.dumps(
        value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
    )
