"""Pretrained models of other tools: a folder of config.json and safetensors files.

What the folder holds is known from its configuration and the headers of its files; tensors are
read when a search begins. Nothing of the folder is executed.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError
from safetensors import SafetensorError, safe_open

from model.errors import CheckpointError
from model.exchange.families import FAMILIES, Family
from model.spec.architecture import Architecture
from model.spec.chat import ChatFormat
from model.spec.trial import InitFrom

if TYPE_CHECKING:
    from torch import Tensor

CONFIG_FILE, WEIGHTS_FILE = "config.json", "model.safetensors"
_INDEX_FILE = "model.safetensors.index.json"
_TEMPLATE_FILE, _TOKENIZER_CONFIG_FILE = "chat_template.jinja", "tokenizer_config.json"
_TOKENS = (
    "bos_token", "eos_token", "unk_token", "pad_token", "sep_token", "cls_token", "mask_token",
)  # fmt: skip
_LARGEST_JSON = 2**26  # bytes
_DTYPES = ("F32", "F16", "BF16")
# tensors that the files of some versions hold beside the weights, and that follow from the sizes
_COMPUTED = re.compile(r"rotary_emb\.inv_freq$|\.attn\.(masked_)?bias$")
_PREFIX = re.compile(r"^(model|transformer)\.")
_ID = re.compile(r"[\w.-]+(/[\w.-]+)?")
_LONGEST_LICENCE = 80


@dataclass(frozen=True)
class Pretrained:
    """A model in a folder, before its tensors are read.

    Attributes:
        path: the folder.
        family: its family.
        architecture: its architecture, with the longest context that it can have.
        files: tensor of the family → file that holds it, and its name there.
        dtype: dtype of the tensors, as in safetensors: F32, F16 or BF16.
        licence: licence that its card names; empty if there is none.
    """

    path: Path
    family: Family
    architecture: Architecture
    files: Mapping[str, tuple[Path, str]]
    dtype: str
    licence: str

    @classmethod
    def open(cls, path: str | Path) -> Pretrained:
        """Read configuration and headers of a folder, and check that they fit each other.

        Raises:
            CheckpointError: if the folder is missing, damaged, or of a model that cannot be
                imported; the message says why.
        """
        folder = Path(path)
        if not folder.is_dir():
            raise CheckpointError(_no_folder(str(path)))
        try:
            config = _json(folder / CONFIG_FILE)
            family = _family(config)
            architecture = _architecture(family, config)
            files, dtype = _files(folder, family, architecture)
        except CheckpointError as error:
            raise CheckpointError(f"{folder}: {error}") from error
        except (TypeError, AttributeError, KeyError, OverflowError) as error:
            raise CheckpointError(
                f"{folder}: {CONFIG_FILE} has a value of another type than expected: {error}"
            ) from error
        return cls(folder, family, architecture, files, dtype, _licence(folder))

    @property
    def about(self) -> str:
        """The model as text: family, size, dtype, context and licence."""
        a = self.architecture
        licence = f"licence {self.licence}" if self.licence else "no licence in its card"
        return (
            f"a {self.family.model_type} of {a.num_parameters:,} weights in {self.dtype}, "
            f"{len({file for file, _ in self.files.values()})} file(s), a context of "
            f"{a.context_length:,}, {a.vocab_size:,} ids, {licence}"
        )

    @property
    def tokenizer_path(self) -> Path | None:
        """File or folder of the tokenizer; None if there is none."""
        if (self.path / "tokenizer.json").is_file():
            return self.path / "tokenizer.json"
        is_gpt2 = all((self.path / name).is_file() for name in ("vocab.json", "merges.txt"))
        return self.path if is_gpt2 else None

    def chat_format(self, end_of_text: str) -> ChatFormat:
        """Return the chat template of the folder, and the special tokens that it may name.

        Args:
            end_of_text: text after answers if the folder names no `eos_token`.

        Raises:
            CheckpointError: if one of the files cannot be read.
        """
        try:
            return _chat_format(self.path, end_of_text)
        except CheckpointError as error:
            raise CheckpointError(f"{self.path}: {error}") from error

    def weights(self) -> dict[str, Tensor]:
        """Return the weights by the names of `parameter_shapes`, float32 on the CPU.

        Files are mapped into memory: tensors that need no conversion are not copied. Each has a
        mapping of its own, so that what was converted is in memory once.

        Raises:
            CheckpointError: if a file changed or cannot be read.
        """
        try:

            def tensor(name: str) -> Tensor:
                file, known = self.files[name]
                with safe_open(file, framework="pt") as opened:
                    read: Tensor = opened.get_tensor(known)
                return read

            return self.family.load(self.architecture, tensor)
        except (OSError, SafetensorError, KeyError, RuntimeError) as error:
            raise CheckpointError(f"{self.path}: a file changed or is damaged: {error}") from error

    def start(self) -> tuple[InitFrom, dict[str, Tensor]]:
        """Return the tensors from which a trial starts, and their entry in its specification.

        Raises:
            CheckpointError: as `weights`.
        """
        from model.checkpoints import checkpoint  # loads torch

        tensors = {f"weights.{name}": tensor for name, tensor in self.weights().items()}
        return InitFrom(sha256=checkpoint.digest(tensors)), tensors


def _no_folder(name: str) -> str:
    if _ID.fullmatch(name) and not Path(name).exists():
        return (
            f"there is no folder {name}; fetch a model of the hub first, 'hf download {name} "
            f"--local-dir FOLDER' (a gated model asks for your token there), and give FOLDER"
        )
    return f"there is no folder {name}; give a folder of {CONFIG_FILE} and safetensors files"


def _json(path: Path) -> dict[str, Any]:
    try:
        if path.stat().st_size > _LARGEST_JSON:
            raise CheckpointError(f"{path.name} is too large")
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise CheckpointError(f"there is no {path.name}; give the folder of a model") from error
    except (OSError, UnicodeDecodeError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path.name} cannot be read: {error}") from error
    if not isinstance(value, dict):
        raise CheckpointError(f"{path.name} holds no object")
    return value


def _family(config: Mapping[str, Any]) -> Family:
    if "auto_map" in config:
        raise CheckpointError("the model needs code of its own (auto_map), which is never run")
    if config.get("quantization_config"):
        raise CheckpointError(
            "the weights are quantized (quantization_config); give the model in float32, float16 "
            "or bfloat16"
        )
    kind = config.get("model_type")
    if kind not in FAMILIES:
        raise CheckpointError(
            f"models of the type {str(kind)[:100]} cannot be imported; the families are "
            f"{', '.join(FAMILIES)}"
        )
    return FAMILIES[str(kind)]


def _architecture(family: Family, config: Mapping[str, Any]) -> Architecture:
    entries = family.entries(config)
    is_windowed = config.get("use_sliding_window", family.model_type == "mistral")
    window = config.get("sliding_window") if is_windowed else None
    if isinstance(window, int):  # in a shorter context a window has no effect
        entries["context_length"] = min(window, entries["context_length"])
    end = config.get("eos_token_id") or 0
    end = end[0] if isinstance(end, list) and end else end
    vocab_size = entries["vocab_size"]
    is_id = isinstance(end, int) and isinstance(vocab_size, int) and 0 <= end < vocab_size
    try:
        return Architecture.model_validate({**entries, "end_of_text": end if is_id else 0})
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        reason = first["msg"].removeprefix("Value error, ")
        raise CheckpointError(
            f"{CONFIG_FILE} describes a model that cannot be trained here: "
            f"{f'{where}: ' if where else ''}{reason}"
        ) from error


def _files(
    folder: Path, family: Family, a: Architecture
) -> tuple[dict[str, tuple[Path, str]], str]:
    """Return where each tensor is, and the dtype, after checking names, shapes and dtypes."""
    shards = _shards(folder)
    present: dict[str, tuple[Path, str]] = {}
    shapes: dict[str, tuple[int, ...]] = {}
    dtypes = set[str]()
    expected = family.shapes(a)
    bare = {_PREFIX.sub("", name): name for name in expected}  # GPT-2's own file has no prefix
    for shard in shards:
        try:
            with safe_open(shard, framework="numpy") as file:
                for name in file.keys():
                    tensor = file.get_slice(name)
                    known = name if name in expected else bare.get(name, name)
                    present[known] = shard, name
                    shapes[known] = tuple(tensor.get_shape())
                    if known in expected:
                        dtypes.add(tensor.get_dtype())
        except (OSError, SafetensorError) as error:
            raise CheckpointError(
                f"{shard.name} is damaged or no safetensors file: {error}"
            ) from error
    for name, shape in expected.items():
        if name not in present:
            raise CheckpointError(f"the files have no tensor {name}, which {CONFIG_FILE} implies")
        if shapes[name] != shape:
            raise CheckpointError(
                f"{name} has the shape {shapes[name]}, and {shape} by {CONFIG_FILE}"
            )
    if other := dtypes - {*_DTYPES}:
        raise CheckpointError(f"tensors are {min(other)}, and only {', '.join(_DTYPES)} are read")
    is_extra = (n for n in present if n not in expected and not _COMPUTED.search(n))
    extra = next((n for n in is_extra if not (n == "lm_head.weight" and a.tied_embeddings)), None)
    if extra is not None:
        raise CheckpointError(
            f"the files have a tensor {extra}, which {family.class_name} does not; the model has "
            f"layers that cannot be imported"
        )
    return {name: present[name] for name in expected}, " and ".join(sorted(dtypes))


def _shards(folder: Path) -> list[Path]:
    """Return the safetensors files of a folder."""
    index = folder / _INDEX_FILE
    if index.exists():
        names = _json(index).get("weight_map")
        if not isinstance(names, dict) or not all(isinstance(n, str) for n in names.values()):
            raise CheckpointError(f"{_INDEX_FILE} does not map tensors to files")
        shards = [folder / Path(name).name for name in dict.fromkeys(names.values())]
        missing = [shard.name for shard in shards if not shard.is_file()]
        if missing:
            raise CheckpointError(
                f"{len(missing)} of {len(shards)} files are missing, {missing[0]} first; fetch "
                f"them again"
            )
        return shards
    if (folder / WEIGHTS_FILE).is_file():
        return [folder / WEIGHTS_FILE]
    pickled = sorted(p.name for p in folder.iterdir() if p.suffix in {".bin", ".pt", ".pth"})
    if pickled:
        raise CheckpointError(
            f"the weights are in {pickled[0]}, a pickle file, which may run code; give "
            f"{WEIGHTS_FILE} ('save_pretrained' of transformers writes it)"
        )
    raise CheckpointError(f"there is no {WEIGHTS_FILE}")


def _chat_format(folder: Path, end_of_text: str) -> ChatFormat:
    path = folder / _TOKENIZER_CONFIG_FILE
    config = _json(path) if path.is_file() else {}
    template = config.get("chat_template")
    if isinstance(template, list):  # several, by name
        named = (each for each in template if isinstance(each, dict))
        template = next((t.get("template") for t in named if t.get("name") == "default"), None)
    if (folder / _TEMPLATE_FILE).is_file():
        try:
            template = (folder / _TEMPLATE_FILE).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise CheckpointError(f"{_TEMPLATE_FILE} cannot be read: {error}") from error
    tokens = {name: text for name in _TOKENS if (text := _token(config.get(name)))}
    return ChatFormat(
        template=template if isinstance(template, str) and template else None,
        tokens=tuple(sorted(tokens.items())),
        begin=tokens.get("bos_token", "") if config.get("add_bos_token") is True else "",
        end=tokens.get("eos_token", end_of_text),
    )


def _token(value: Any) -> str:
    """Return a special token of a configuration: a text, or an object with one."""
    text = value.get("content") if isinstance(value, dict) else value
    return text if isinstance(text, str) else ""


def _licence(folder: Path) -> str:
    """Return the licence that the front matter of the folder's README names; empty if none."""
    try:
        with (folder / "README.md").open(encoding="utf-8") as file:
            lines = file.read(_LARGEST_JSON).split("\n---", 1)[0].splitlines()
    except (OSError, UnicodeDecodeError):
        return ""
    for line in lines if lines[:1] == ["---"] else ():
        if line.startswith("license:"):
            named = line.removeprefix("license:").strip().strip("\"'")
            return "".join(c for c in named if c.isprintable())[:_LONGEST_LICENCE]
    return ""
