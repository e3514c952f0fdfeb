"""What may be asked of a search, and the command that does it.

The words of a command are made here from checked values: no text of a user becomes an option.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from model.generation.settings import GenerationSettings
from tuner.home.names import is_name

MOST_TOKENS, MOST_SAMPLES, MOST_PROMPT = 500, 4, 4_000
_TrialNumber = Annotated[int, Field(ge=0, le=1_000_000)]
_Width = Annotated[int, Field(ge=40, le=1_000)]
_Word = Annotated[str, StringConstraints(max_length=200, pattern=r"^[^-\x00-\x1f][^\x00-\x1f]*$")]


class _Wish(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @property
    def trains(self) -> bool:
        """True if it may train a trial, so that it is not for viewers."""
        return False

    @property
    def lasts(self) -> bool:
        """True if it gives the same again while the journal is the same."""
        return True

    def others(self) -> list[str]:
        """Return the names of further searches that it is about."""
        return []

    @property
    def trial_number(self) -> int | None:
        """Number of the trial that it is about; None for the best, or the whole search."""
        return None

    def command(self, search: str, folder: Path) -> list[str]:
        """Return the words of the command after `tuner`.

        Args:
            search: name of the search.
            folder: folder for its files.
        """
        raise NotImplementedError


class _OfTrial(_Wish):
    trial: _TrialNumber | None = Field(None, description="its number; by default the best one")

    @property
    def trains(self) -> bool:
        """True: weights that were not kept are trained again."""
        return True

    @property
    def trial_number(self) -> int | None:
        """Number of the trial."""
        return self.trial

    def _trial(self, search: str) -> list[str]:
        return ["--search", search] if self.trial is None else [f"{search}/{self.trial}"]


class ReportWish(_Wish):
    """Write the search as one HTML page, as `tuner report` does."""

    kind: Literal["report"]

    def command(self, search: str, folder: Path) -> list[str]:
        """Return the words of the command."""
        return ["report", "--search", search, "--output", str(folder / f"{search}.html"), "--json"]


class ExportWish(_OfTrial):
    """Write a trained trial for other tools, as `tuner export` does; as one zip file."""

    kind: Literal["export"]
    format: Literal["hf", "gguf", "torch", "peft"] = "hf"

    def command(self, search: str, folder: Path) -> list[str]:
        """Return the words of the command."""
        trial = "best" if self.trial is None else str(self.trial)
        target = folder / f"{search}-{trial}-{self.format}"
        words = ["export", *self._trial(search), "--format", self.format]
        return [*words, "--output", str(target), "--json"]


class CheckpointWish(_OfTrial):
    """Fetch the checkpoint of a trial whose weights were kept: weights and moments."""

    kind: Literal["checkpoint"]

    @property
    def trains(self) -> bool:
        """False: a checkpoint that was not kept is not made again."""
        return False

    def command(self, search: str, folder: Path) -> list[str]:
        """Return the words of the command."""
        trial = [] if self.trial is None else [str(self.trial)]
        return [search, str(folder), *trial]


class ReplayWish(_OfTrial):
    """Train a trial again and compare every report with the recorded one, as `tuner replay`."""

    kind: Literal["replay"]

    @property
    def lasts(self) -> bool:
        """False: who asks again wants to see it again."""
        return False

    def command(self, search: str, folder: Path) -> list[str]:
        """Return the words of the command."""
        return ["replay", *self._trial(search), "--json"]


class GenerateWish(_OfTrial):
    """Let a trained trial write text, as `tuner generate` does."""

    kind: Literal["generate"]
    prompt: str = Field("", max_length=MOST_PROMPT)
    raw: bool = Field(False, description="continue the prompt without the model's chat template")
    system: str | None = Field(
        None, max_length=MOST_PROMPT, description="message of the system, with a chat template"
    )
    temperature: float = Field(0.8, ge=0, le=1000)
    top_k: int = Field(0, ge=0, le=2**31)
    top_p: float = Field(0.95, gt=0, le=1)
    repetition_penalty: float = Field(1.0, ge=1e-3, le=1000)
    max_tokens: int = Field(200, ge=1, le=MOST_TOKENS)
    seed: int = Field(0, ge=0, lt=2**53)
    samples: int = Field(1, ge=1, le=MOST_SAMPLES)

    @property
    def texts(self) -> dict[str, str]:
        """Texts that the command reads from files, by the names of the files."""
        system = {} if self.system is None else {"system.txt": self.system}
        return {"prompt.txt": self.prompt, **system}

    def command(self, search: str, folder: Path) -> list[str]:
        """Return the words of the command; the texts are read from the files of `texts`."""
        named = {name: getattr(self, name) for name in GenerationSettings.model_fields
                 if name in type(self).model_fields}  # fmt: skip
        options = [f"--{name.replace('_', '-')}={value}" for name, value in named.items()]
        options += [f"--samples={self.samples}", *["--raw"] * self.raw]
        files = {"prompt.txt": "--file", "system.txt": "--system-file"}
        options += [word for name in self.texts for word in (files[name], str(folder / name))]
        return ["generate", *self._trial(search), *options, "--json"]


class ShowWish(_Wish):
    """Print the search or a trial of it, as `tuner show` does."""

    kind: Literal["show"]
    trial: _TrialNumber | None = None
    by: _Word | None = Field(None, description="group the trials by this parameter")
    all: bool = False
    csv: bool = False
    take_away: Literal["yaml", "transformers", "nanogpt"] | None = Field(
        None, description="print the trial for another trainer"
    )
    json_line: bool = Field(False, description="as --json")
    width: _Width = 80

    @property
    def trial_number(self) -> int | None:
        """Number of the trial."""
        return self.trial

    def command(self, search: str, folder: Path) -> list[str]:
        """Return the words of the command."""
        words = ["--search", search] if self.trial is None else [f"{search}/{self.trial}"]
        words += [f"--by={self.by}"] * (self.by is not None)
        words += [f"--{self.take_away}"] * (self.take_away is not None)
        flags = {"--all": self.all, "--csv": self.csv, "--json": self.json_line}
        return ["show", *words, *(flag for flag, is_on in flags.items() if is_on)]


class CompareWish(_Wish):
    """Print searches, or trials of them, side by side, as `tuner compare` does."""

    kind: Literal["compare"]
    runs: list[Annotated[str, StringConstraints(max_length=220)]] = Field(
        min_length=1, max_length=20, description="searches, or trials as SEARCH/TRIAL"
    )
    json_line: bool = Field(False, description="as --json")
    width: _Width = 80

    def others(self) -> list[str]:
        """Return the names of the searches."""
        return [run.partition("/")[0] for run in self.runs]

    def command(self, search: str, folder: Path) -> list[str]:
        """Return the words of the command."""
        for run in self.runs:
            name, slash, number = run.partition("/")
            if not is_name(name) or (slash and not (number.isascii() and number.isdecimal())):
                raise ValueError("runs must be names of searches, or trials as SEARCH/TRIAL")
        return ["compare", *self.runs, *["--json"] * self.json_line]


Wish = Annotated[
    ReportWish | ExportWish | CheckpointWish | ReplayWish | GenerateWish | ShowWish | CompareWish,
    Field(discriminator="kind"),
]
