from __future__ import annotations

from model.engine.report import Report, Status
from tests.conftest import MakeSpec
from tuner.conductor.outcome import FINISHED
from tuner.conductor.trial import Trial


def test_trial_is_shown_in_one_line(make_spec: MakeSpec) -> None:
    """The default of a dataclass showed the complete specification and all reports: 4 kB."""
    trial = Trial(3, make_spec(), {"α_max": 0.0123456, "B": 16})
    assert repr(trial) == "<trial 3, in training: α_max 0.0123456, B 16>"
    trial.reports.append(Report("3", Status.FINISHED, 12, 384, 3.14159, 3.0, 1.0, 0.01))
    trial.outcome = FINISHED
    assert repr(trial) == "<trial 3, finished, val_loss 3.1416: α_max 0.0123456, B 16>"
