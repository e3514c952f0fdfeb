"""Run by test_chat_template.py, apart: what transformers makes of chats.

Reads FOLDER/chats.json, a list of [tokenizer file, template, tokens, messages, asks], and writes
FOLDER/written.json: for each the text, its ids, and the mask of the assistant's tokens.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from transformers import PreTrainedTokenizerFast


def main(folder: Path) -> None:
    """Write what transformers makes of the chats of a folder."""
    written = []
    for file, template, tokens, messages, asks in json.loads((folder / "chats.json").read_text()):
        tokenizer = PreTrainedTokenizerFast(tokenizer_file=file, **tokens)
        tokenizer.chat_template = template
        text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=asks)
        made = tokenizer.apply_chat_template(
            messages, return_dict=True, return_assistant_tokens_mask=not asks,
            add_generation_prompt=asks,
        )  # fmt: skip
        written.append([text, made["input_ids"], made.get("assistant_masks")])
    (folder / "written.json").write_text(json.dumps(written))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
