"""The model of a trial as MLflow serves it: texts in, texts out.

Beside MLflow's own file a model is a folder of three: `model.safetensors` has the weights without
K, `spec.json` says what was trained, `tokenizer.json` is in the format of Hugging Face. Nothing is
pickled. Who loads it has this package installed:

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
# What a process needs beside this package, as it is installed here.
_NEEDED = ("mlflow", "torch", "numpy", "regex", "safetensors", "pydantic")


class TextModel:
    """A model that writes.

    Args:
        spec: what was trained.
        weights: by the names of `parameter_shapes`, without K.
        tokenizer: the one that it was trained with.
    """

    def __init__(self, spec: TrialSpec, weights: Mapping[str, Tensor], tokenizer: Any) -> None:
        from model.generation.generate import stack_weights

        self._architecture, self._tokenizer = spec.architecture, tokenizer
        self._weights = stack_weights(spec.architecture, [weights])

    def predict(
        self, model_input: pandas.DataFrame | Sequence[str], params: dict[str, Any] | None = None
    ) -> list[str]:
        """How the model goes on after each prompt; an encoder–decoder translates it.

        Args:
            model_input: prompts, or a table with one column of them.
            params: the fields of `GenerationSettings`. The same ones give the same text to a
                prompt, whatever stands beside it.

        Raises:
            ValidationError: if a setting is out of range.
        """
        from model.generation.generate import ENDED, generate

        settings = GenerationSettings(**(params or {}))
        prompts = [self._tokenizer.encode(prompt) for prompt in _texts(model_input)]
        if not prompts:
            return []
        written: list[list[int]] = [[] for _ in prompts]
        numbers = [0] * len(prompts)
        for ids in generate(
            self._architecture, self._weights, [prompts], settings, numbers=numbers
        ):
            for own, token in zip(written, ids[0].tolist(), strict=True):
                if token != ENDED:
                    own.append(token)
        return [self._tokenizer.decode(own) for own in written]


def _texts(model_input: Any) -> list[str]:
    """Prompts from whatever MLflow hands on."""
    if hasattr(model_input, "iloc"):
        model_input = model_input.iloc[:, 0]
    return [str(text) for text in model_input]


def _load_pyfunc(data_path: str) -> TextModel:
    """What MLflow calls to load a model; the name is MLflow's."""
    from safetensors.torch import load_file

    from model.tokenizer.tokenizer import Tokenizer

    folder = Path(data_path)
    spec = TrialSpec.model_validate_json((folder / _SPEC).read_text(encoding="utf-8"))
    tokenizer = Tokenizer.from_file(folder / _TOKENIZER)
    return TextModel(spec, load_file(folder / _WEIGHTS), tokenizer)


def save(folder: Path, trained: TrainedTrial, model_id: str) -> None:
    """Write a trial as a model of MLflow into an empty folder.

    By `pyfunc.add_to_model`: `pyfunc.save_model` does the same in a second or two, most of which it
    spends on finding out what we know.

    Args:
        folder: where to.
        trained: the trial.
        model_id: of the logged model that this will be.
    """
    from mlflow import pyfunc
    from mlflow.models import Model
    from safetensors.torch import save_file

    data = folder / _FOLDER
    data.mkdir()
    weights = {name: tensor.contiguous() for name, tensor in trained.weights.items()}
    save_file(weights, data / _WEIGHTS, {"format": "pt"})
    (data / _SPEC).write_text(trained.spec.model_dump_json(indent=2), encoding="utf-8")
    trained.tokenizer.save(data, "huggingface")
    # +cpu and the like are no versions that others can ask for
    needed = (f"{name}=={metadata.version(name).partition('+')[0]}" for name in _NEEDED)
    (folder / "requirements.txt").write_text("\n".join([*needed, ""]), encoding="utf-8")
    made = Model(run_id=trained.trial.run_id, model_id=model_id, signature=_signature())
    pyfunc.add_to_model(made, loader_module=__name__, data=_FOLDER)
    made.save(str(folder / "MLmodel"))


def _signature() -> Any:
    """One column of texts in, one out, and how to write."""
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, DataType, ParamSchema, ParamSpec, Schema

    kinds = {int: DataType.long, float: DataType.double}
    params = [
        ParamSpec(name, kinds[type(value)], value)
        for name, value in GenerationSettings().model_dump().items()
    ]
    return ModelSignature(
        Schema([ColSpec(DataType.string)]),  # with a name it would refuse a list
        Schema([ColSpec(DataType.string)]),
        ParamSchema(params),
    )
