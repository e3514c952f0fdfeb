from __future__ import annotations

import pytest

from tuner.conductor.outcome import FINISHED, Outcome, OutcomeKind

TEXTS = {
    OutcomeKind.FINISHED: "finished",
    OutcomeKind.STOPPED: "stopped at report 3",
    OutcomeKind.DIVERGED: "diverged",
    OutcomeKind.FAILED: "failed: the worker died: no memory",
    OutcomeKind.INFEASIBLE: "infeasible: it needs 3 GB",
    OutcomeKind.DUPLICATE: "same as trial 12",
    OutcomeKind.INTERRUPTED: "interrupted",
}


@pytest.mark.parametrize("kind", OutcomeKind)
def test_outcome_is_written_and_read_as_its_text(kind: OutcomeKind) -> None:
    outcome = Outcome.parse(TEXTS[kind])
    assert outcome.kind is kind
    assert str(outcome) == f"{outcome}" == TEXTS[kind]


def test_outcome_equals_its_text() -> None:
    assert Outcome.stopped(3) == "stopped at report 3"
    assert Outcome.same_as(12) == Outcome.parse("same as trial 12")
    assert Outcome.failed("x") != "failed: y"
    assert {FINISHED, "finished"} == {"finished"}
    assert FINISHED != OutcomeKind.FINISHED.name


def test_outcome_keeps_its_detail() -> None:
    assert (
        Outcome.parse("failed: the worker died: no memory").detail == "the worker died: no memory"
    )
    assert Outcome.parse("failed: ").detail == ""
    assert Outcome.parse("stopped at report 3").detail == "3"


@pytest.mark.parametrize("text", ["running", "", "stopped", "finished early", "same"])
def test_outcome_refuses_other_texts(text: str) -> None:
    with pytest.raises(ValueError, match="is not the outcome of a trial"):
        Outcome.parse(text)
