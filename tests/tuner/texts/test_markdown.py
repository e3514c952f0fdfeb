from __future__ import annotations

import pytest

from model.spec.data import DataConfig
from tests.conftest import MakeSpec
from tests.tuner.trained.trained_trials import make_trial
from tuner.texts.markdown import cell, code, prose
from tuner.tracking.datasets import dataset_name
from tuner.trained.readme import card, details

EVIL = "c/a](http:x)<img src=x onerror=alert(1)>`|\n# H\x1b[31m.txt"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a.txt", "`a.txt`"),
        ("a`b", "``a`b``"),
        ("``a", "``` ``a ```"),
        ("a\n# b\x1b", r"`a\n# b\x1b`"),
    ],
)
def test_code_has_every_name(text: str, expected: str) -> None:
    assert code(text) == expected


def test_prose_is_not_read_as_markdown_or_html() -> None:
    assert prose("lm-1, 3.5 (finished)") == "lm-1, 3.5 (finished)"
    assert prose("[a](b) <i>*c*</i> &lt; `d` _e_\n# f") == (
        r"\[a\](b) \<i\>\*c\*\</i\> \&lt; \`d\` \_e\_\\n\# f"
    )
    assert cell(prose("a|b")) == r"a\|b"


def test_readme_has_foreign_names_as_they_are(make_spec: MakeSpec) -> None:
    trained = make_trial(make_spec, status=f"failed: {EVIL}")
    data = DataConfig(files=(EVIL,))
    object.__setattr__(trained, "spec", trained.spec.model_copy(update={"data": data}))
    object.__setattr__(trained.trial, "search", EVIL)
    trained.trial.environment["device"] = EVIL
    readme = card(trained, None) + details(trained)
    shown = code(EVIL)
    assert f"The files {shown}, of which" in readme
    outside = readme.replace(shown, "")
    assert "\x1b" not in outside
    assert "\n# H" not in outside
    assert outside.count(r"\<img src=x") == 4  # title, description, outcome, device
    assert outside.count("<img") == 4


def test_name_of_a_dataset_is_one_line() -> None:
    assert dataset_name(DataConfig(files=("texts/a\n\x1b.txt", "b.txt"))) == r"a\n\x1b.txt, b.txt"
