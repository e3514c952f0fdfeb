"""Examples of a fine-tuning: rows of .jsonl files in three forms, checked and brought to one.

{"messages": [{"role": "user", "content": …}, {"role": "assistant", "content": …}, …]}
{"prompt": …, "completion": …}                 texts, or messages
{"instruction": …, "input": …, "output": …}    the input may be missing
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from model.errors import CorpusError
from model.sources.streams import listed

# Key by which a form is known → all of its keys that are read.
FORMS: Mapping[str, tuple[str, ...]] = {
    "messages": ("messages", "tools"),
    "completion": ("prompt", "completion", "tools"),
    "output": ("instruction", "input", "output"),
}
_FIRST = ("system", "developer")
_ROLES = (*_FIRST, "user", "assistant", "tool")
# Role → roles of messages that may not come right before it.
_NOT_AFTER = {"user": ("user",), "assistant": ("assistant",)}


def place_of(name: str) -> str:
    """Return file and line of a document, the beginning of an error message."""
    file, _, row = name.rpartition("#")
    return f"data: {file} line {int(row) + 1}"


def example_text(row: Mapping[str, Any], where: str) -> str:
    """Return an example as JSON of one form; it is text once the chat template is known.

    Args:
        row: a row of a .jsonl file; keys of no form are left out.
        where: file and line, the beginning of an error message.

    Returns:
        JSON of `messages` with `learned`, the number of the first message that may be learned; or
        of `instruction`, `input` and `output`; or of the texts `prompt` and `completion`.

    Raises:
        CorpusError: if the row has none or several of the forms, no answer, or roles out of order.
    """
    found = [key for key in FORMS if row.get(key) is not None]
    if len(found) != 1:
        what = f"has {' and '.join(found)}" if found else f"has the fields {listed(row)}"
        raise CorpusError(
            f"{where} {what}, and an example is in one form: messages, prompt and completion, or "
            f"instruction and output"
        )
    example = {key: row[key] for key in FORMS[found[0]] if row.get(key) is not None}
    if found == ["completion"] and isinstance(example["completion"], list):
        prompt, completion = example.get("prompt") or [], example["completion"]
        if not isinstance(prompt, list):
            raise CorpusError(f"{where} has a completion of messages, and a prompt that is a text")
        example = {**example, "messages": [*prompt, *completion], "learned": len(prompt)}
        del example["completion"]
        example.pop("prompt", None)
    if "messages" in example:
        example["messages"] = _messages(example["messages"], example.get("learned", 0), where)
    else:
        _check_texts(example, found[0], where)
    return json.dumps(example, ensure_ascii=False)


def _check_texts(example: Mapping[str, Any], answer: str, where: str) -> None:
    """Check that all parts of an example are texts, and that it has a prompt and an answer."""
    for key, value in example.items():
        if not isinstance(value, str):
            raise CorpusError(f"{where}: {key} is not a text but {type(value).__name__}")
    question = "prompt" if answer == "completion" else "instruction"
    if not example.get(question):
        raise CorpusError(f"{where} has no {question}; add one, or remove the row")
    if not example[answer].strip():
        raise CorpusError(f"{where} has no answer: {answer} is empty; add one, or remove the row")


def _messages(messages: Any, learned: int, where: str) -> list[dict[str, Any]]:
    """Return the messages of a conversation without keys that are null, after checking them.

    Source: transformers leaves out such keys, because templates would write `None`.
    """
    if not isinstance(messages, list) or not all(isinstance(each, dict) for each in messages):
        raise CorpusError(f"{where}: messages is not a list of objects with role and content")
    kept = [{key: value for key, value in each.items() if value is not None} for each in messages]
    before = ""
    for number, message in enumerate(kept, 1):
        role, content = message.get("role"), message.get("content", "")
        if role not in _ROLES:
            raise CorpusError(
                f"{where}: message {number} has the role {str(role)[:40]!r}; roles are "
                f"{', '.join(_ROLES)}"
            )
        if not isinstance(content, str) or ("content" not in message and role != "assistant"):
            raise CorpusError(f"{where}: message {number} has no content that is a text")
        if (role in _FIRST and number > 1) or before in _NOT_AFTER.get(role, ()):
            raise CorpusError(
                f"{where}: roles are out of order: message {number} is of the {role} and comes "
                f"after {before}; user and assistant take turns, and {_FIRST[0]} is first"
            )
        before = role
    answers = (each for each in kept[learned:] if each["role"] == "assistant")
    if not any(each.get("content", "").strip() or each.get("tool_calls") for each in answers):
        raise CorpusError(f"{where} has no answer of the assistant; add one, or remove the row")
    return kept
