"""Routes for who designs a search: schema, presets, validation with the cost, changes of a text."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Body, Query, Request
from pydantic import BaseModel, ConfigDict, Field
from starlette.concurrency import run_in_threadpool

from tuner.errors import SpaceError
from tuner.serve.api.explained import ValidationView, explained
from tuner.serve.api.requests import YAML, Asking, Class, Serving
from tuner.serve.queue import Priority
from tuner.space_file.shipped import shipped_spaces, subject
from tuner.space_file.symbols import schema
from tuner.space_file.text_edit import with_value
from tuner.space_file.yaml_file import YamlFile

router = APIRouter(tags=["design"])
_FILE = "search.yaml"
_MOST_TEXT = 200_000  # as of a file


class SettingView(BaseModel):
    """A setting of a section, or a parameter.

    Attributes:
        name: name in the file.
        symbol: its symbol; the name if it has none.
        spellings: further names that a file may use.
        meaning: meaning.
        formula: formula that the value enters.
        unit: unit, as text.
        type: `string`, `integer`, `number`, `boolean` or `array`.
        default: the default; None if there is none, or it follows from others.
        default_text: the default as text, such as `0.1·α_max`.
        range: the values that are accepted, as text.
        low: low end; None without one.
        high: high end.
        is_low_open: True if the low end itself is excluded.
        is_high_open: True if the high end itself is excluded.
        choices: all values; none if there are too many.
        choice_meanings: value → meaning.
        used_when: name of a parameter → values with which this one has an effect.
    """

    name: str
    symbol: str = ""
    spellings: list[str] = Field(default_factory=list)
    meaning: str
    formula: str = ""
    unit: str = ""
    type: str
    default: Any = None
    default_text: str = ""
    range: str = ""
    low: float | None = None
    high: float | None = None
    is_low_open: bool = False
    is_high_open: bool = False
    choices: list[str | float] = Field(default_factory=list)
    choice_meanings: dict[str, str] = Field(default_factory=dict)
    used_when: dict[str, list[Any]] = Field(default_factory=dict)


class SectionView(BaseModel):
    """A section of a space, such as `budget:`."""

    name: str
    about: str
    settings: list[SettingView]


class SchemaView(BaseModel):
    """The schema of a space; entries of `model` and `hyperparameters` may be searched.

    Attributes:
        sections: sections with their settings.
        model: entries of `model:`.
        hyperparameters: rows of the symbol table.
        kinds: form of a distribution → meaning.
    """

    sections: list[SectionView]
    model: list[SettingView]
    hyperparameters: list[SettingView]
    kinds: dict[str, str]


class PresetView(BaseModel):
    """A space that comes with tuner: its name, the first sentence of its file, and the file."""

    name: str
    about: str
    text: str


class ChangeWish(BaseModel):
    """A change of a value: keys from the top, and the value as YAML; None removes it."""

    model_config = ConfigDict(extra="forbid")

    path: list[Annotated[str, Field(min_length=1, max_length=100)]] = Field(
        min_length=1, max_length=6
    )
    value: str | None = Field(None, max_length=2_000)


class DraftWish(BaseModel):
    """A text of a space, and changes to make in it."""

    model_config = ConfigDict(extra="forbid")

    text: str = Field(max_length=_MOST_TEXT)
    changes: list[ChangeWish] = Field(default_factory=list, max_length=100)


class DraftView(BaseModel):
    """A text of a space, and its values as they are read: dicts, lists, numbers and texts."""

    text: str
    data: Any


@router.get("/schema")
def show_schema(user: Asking) -> SchemaView:
    """Return the schema of a space: what a form needs."""
    return SchemaView.model_validate(schema())


@router.get("/presets")
def list_presets(user: Asking) -> list[PresetView]:
    """List the spaces that come with tuner."""
    return [
        PresetView(name=name, about=f"{subject(path)}.", text=path.read_text(encoding="utf-8"))
        for name, path in shipped_spaces().items()
    ]


@router.post("/validate", openapi_extra=YAML)
async def validate(
    request: Request,
    user: Asking,
    service: Serving,
    priority: Class = "normal",
    least: Annotated[int | None, Query(ge=1, le=4096)] = None,
    complete: bool = False,
) -> ValidationView:
    """Check a space, and say every mistake with its line and column, or what it would cost."""
    data, chosen = await request.body(), Priority[priority.upper()]
    return await run_in_threadpool(explained, service, user, data, chosen, least, complete=complete)


@router.post("/draft")
def draft(wish: Annotated[DraftWish, Body()], user: Asking) -> DraftView:
    """Change values in the text of a space; comments and all else stay as they are."""
    text = wish.text
    for change in wish.changes:
        text = with_value(text, change.path, change.value, _FILE)
    file = YamlFile(_FILE, text)
    if file.mistakes:
        raise SpaceError(_FILE, file.mistakes)
    return DraftView(text=text, data=file.data)
