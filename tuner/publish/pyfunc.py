"""Model of a trial as MLflow serves it: texts in, texts out.

Apart from MLflow's own file a model is a folder of three: `model.safetensors` has the weights
without K, `spec.json` the specification, `tokenizer.json` is in the format of Hugging Face. Nothing
is pickled. A process that loads a model needs this package:

    model = mlflow.pyfunc.load_model("models:/lm@champion")
    model.predict(["def "], params={"max_tokens": 64, "temperature": 0.0})
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from model.generation.settings import GenerationSettings
from model.spec.trial import TrialSpec

if TYPE_CHECKING:
    import pandas
    from torch import Tensor

    from tuner.trained.load_trial import TrainedTrial

_FOLDER = "data"
_WEIGHTS, _SPEC, _TOKENIZER = "model.safetensors", "spec.json", "tokenizer.json"
# Requirements of a model apart from this package, in the installed versions.
_NEEDED = ("mlflow", "torch", "numpy", "regex", "safetensors", "pydantic", "jinja2")
# Of the prompt, beside the settings of the generation.
_PROMPT_PARAMS: Mapping[str, Any] = {"raw": False, "system": ""}


class TextModel:
    """A model that generates text.

    Args:
        spec: specification of the trial.
        weights: weights by the names of `parameter_shapes`, without K.
        tokenizer: tokenizer of the training.
    """

    def __init__(self, spec: TrialSpec, weights: Mapping[str, Tensor], tokenizer: Any) -> None:
        from model.generation.generate import stack_weights

        self._spec, self._tokenizer = spec, tokenizer
        self._weights = stack_weights(spec.architecture, [weights])

    def predict(
        self, model_input: pandas.DataFrame | Sequence[str], params: dict[str, Any] | None = None
    ) -> list[str]:
        """Continue each prompt; an encoder–decoder translates it, and a chat answers it.

        Args:
            model_input: prompts, or a table with one column of prompts.
            params: the fields of `GenerationSettings`; with a chat template also `raw`, True to
                continue prompts as they are, and `system`, a message before each. The text of a
                prompt depends only on them, not on the other prompts.

        Raises:
            ValidationError: if a setting is out of range.
            CorpusError: if the model cannot read a prompt.
        """
        from model.generation.generate import ENDED, generate
        from model.generation.prompts import Prompt, end_ids

        of_prompt = {**_PROMPT_PARAMS, **(params or {})}
        is_raw, system = (of_prompt.pop(name) for name in _PROMPT_PARAMS)
        settings = GenerationSettings(**of_prompt)
        spec, tokenizer = self._spec, self._tokenizer
        prompts = [
            Prompt(text, is_raw, system or None).ids(spec, tokenizer)
            for text in _texts(model_input)
        ]
        if not prompts:
            return []
        a = spec.architecture
        ends = end_ids(a.end_of_text, spec.data.chat, tokenizer)
        outputs: list[list[int]] = [[] for _ in prompts]
        numbers = [0] * len(prompts)
        for ids in generate(a, self._weights, [prompts], settings, numbers=numbers, ends=ends):
            for output, token in zip(outputs, ids[0].tolist(), strict=True):
                # the vocabulary of the model may be larger than the tokenizer's
                if token != ENDED and token in tokenizer.vocab:
                    output.append(token)
        return [tokenizer.decode(output) for output in outputs]


def _texts(model_input: Any) -> list[str]:
    """Return the prompts in MLflow's input: a table, or a sequence of texts."""
    if hasattr(model_input, "iloc"):
        model_input = model_input.iloc[:, 0]
    return [str(text) for text in model_input]


def _load_pyfunc(data_path: str) -> TextModel:
    """Load a model; MLflow calls this function by its name."""
    from safetensors.torch import load_file

    from model.tokenizer.load import open_tokenizer

    folder = Path(data_path)
    spec = TrialSpec.model_validate_json((folder / _SPEC).read_text(encoding="utf-8"))
    tokenizer = open_tokenizer(folder / _TOKENIZER)
    return TextModel(spec, load_file(folder / _WEIGHTS), tokenizer)


def save(folder: Path, trained: TrainedTrial, model_id: str) -> None:
    """Write a trial as a model of MLflow into an empty folder.

    Uses `pyfunc.add_to_model`, because `pyfunc.save_model` takes a second or two, mostly to infer
    the requirements that are known here.

    Args:
        folder: the folder.
        trained: the trial.
        model_id: id of the logged model.
    """
    from mlflow import pyfunc
    from mlflow.models import Model
    from safetensors.torch import save_file

    data = folder / _FOLDER
    data.mkdir()
    weights = {name: tensor.contiguous() for name, tensor in trained.weights.items()}
    save_file(weights, data / _WEIGHTS, {"format": "pt"})
    (data / _SPEC).write_text(trained.spec.model_dump_json(indent=2), encoding="utf-8")
    (data / _WEIGHTS).chmod((data / _SPEC).stat().st_mode)  # safetensors makes it for one user
    trained.tokenizer.save(data, "huggingface")
    # a local version such as +cpu is not on the package index
    requirements = (f"{name}=={metadata.version(name).partition('+')[0]}" for name in _NEEDED)
    (folder / "requirements.txt").write_text("\n".join([*requirements, ""]), encoding="utf-8")
    model = Model(run_id=trained.trial.run_id, model_id=model_id, signature=_signature())
    pyfunc.add_to_model(model, loader_module=__name__, data=_FOLDER)
    model.save(str(folder / "MLmodel"))


def _signature() -> Any:
    """Return the signature: one column of texts in, one out, and the generation settings."""
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, DataType, ParamSchema, ParamSpec, Schema

    kinds: dict[type, DataType] = {
        int: DataType.long, float: DataType.double, bool: DataType.boolean, str: DataType.string,
    }  # fmt: skip
    params = [
        ParamSpec(name, kinds[type(value)], value)
        for name, value in {**GenerationSettings().model_dump(), **_PROMPT_PARAMS}.items()
    ]
    return ModelSignature(
        Schema([ColSpec(DataType.string)]),  # a column with a name would refuse a list
        Schema([ColSpec(DataType.string)]),
        ParamSchema(params),
    )
