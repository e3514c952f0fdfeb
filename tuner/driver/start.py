"""The start of a session: named steps, each of which adds what later ones need.

    checks ─▶ compilation ─▶ data ─▶ sources ─▶ bucket ─▶ dtype ─▶ Ray ─▶ workers ─▶ record

A search that begins takes the steps of one that is resumed; its journal is empty. What a step
imports stands in the step, because a second of imports before Ray's processes start is a second
until the first trial trains. So MLflow, which takes seconds, is loaded when the first trials train
(`MlflowProjection.send`), unless the store is a server or a session before has recorded the search.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from model.corpus.corpus import Corpus
from model.progress import Progress
from tuner.driver.interrupt import Interrupts
from tuner.driver.steps import Step
from tuner.driver.team import Team, begin_compilation, start_ray, start_team
from tuner.driver.view import SilentView, View
from tuner.errors import Interrupted, TunerError
from tuner.home.home import Home
from tuner.journal.edit import changes, check_edit
from tuner.journal.events import SearchBegun
from tuner.journal.fold import Search
from tuner.journal.follower import Follower
from tuner.journal.journal import Journal, check_digest
from tuner.lease.holder import Holder
from tuner.lease.lease import Wait
from tuner.lease.stop_request import LOOK_SECONDS
from tuner.results.result import SearchResult
from tuner.space.data_facts import DataFacts
from tuner.space.proposals import Proposals
from tuner.space.space import SearchSpace
from tuner.storage.states import CHECKPOINTS
from tuner.storage.storage import Storage
from tuner.texts.formatting import listed

if TYPE_CHECKING:
    from tuner.notify.receivers import Receiver
    from tuner.tracking.projection import MlflowProjection
    from tuner.tracking.record import Record
    from tuner.trained.find_start import WarmStart
    from tuner.trained.recorded_trials import RecordedTrials
    from tuner.workers.products import ProductsMeasurement
    from tuner.workers.ray_session import RaySession

_MIRROR_SECONDS = 10.0  # longest wait for the storage at the end

OnResult = Callable[[SearchResult], None]


@dataclass(frozen=True, kw_only=True)
class SearchRequest:
    """What the caller of `search` or `resume` asks for.

    Attributes:
        edit: function from the recorded space to the space of this session; gets None if no search
            has begun.
        space_text: text of the file of the space, to be kept with the search; None keeps the text
            that is recorded.
        home: home of the search.
        view: view of the progress.
        fresh: True to train trials again that another search has finished already.
        debug: True to keep the folder of Ray's session, with its logs.
        address: address of a Ray cluster, HOST:PORT or auto, or local; None for RAY_ADDRESS or
            this machine alone.
        notify: URLs of webhooks, or of Apprise, that hear of the search, besides those of the
            user's file (`notify.receivers`).
        on_result: function to call with the result when the record is complete, before the model is
            registered and the report is written.
    """

    edit: Callable[[SearchSpace | None], SearchSpace]
    space_text: str | None = None
    home: Home = field(default_factory=lambda: Home.at())
    view: View = field(default_factory=SilentView)
    fresh: bool = False
    debug: bool = False
    address: str | None = None
    notify: Sequence[str] = ()
    on_result: OnResult = lambda result: None


class Start:
    """What the steps of a start have made so far; the inputs of a session once all are taken.

    Args:
        request: what the caller asks for.
        journal: journal of the search, open.
        interrupts: deferred signals of the user.
        ends: stack that ends what the steps begin, in reverse order.
        ray: stack that ends Ray, after all others.

    Attributes:
        began: time of `time.monotonic` at which the session started.
        name: name of the search.
        recorded: the search up to the last session; None if it begins.
        space: space of this session.
        receivers, address, corpus, facts, start, mirror, products, session, team, trials, mlflow,
            proposals, trial_bytes: what the step of each has made.
    """

    receivers: Sequence[Receiver]
    address: str | None
    corpus: Corpus
    facts: DataFacts
    start: WarmStart | None
    mirror: Follower | None
    products: ProductsMeasurement | None
    session: RaySession
    team: Team
    trials: RecordedTrials
    mlflow: MlflowProjection
    proposals: Proposals
    trial_bytes: int

    def __init__(
        self, request: SearchRequest, journal: Journal, interrupts: Interrupts, ends: ExitStack,
        ray: ExitStack,
    ) -> None:  # fmt: skip
        self.began = time.monotonic()
        self.request, self.journal, self.interrupts = request, journal, interrupts
        self.ends, self.ray = ends, ray
        self.home, self.view = request.home, request.view
        self.name = journal.path.parent.name
        self.recorded = Search.of(journal.events)
        self.space = edited_space(self.recorded, self.name, request)
        self.early_record: Record | None = None
        self.is_over = False
        self._looked_at = -math.inf
        ends.callback(self.give_up)

    @property
    def folder(self) -> Path:
        """Folder of the journal and the checkpoints."""
        return self.home.search(self.name)

    @property
    def is_recorded(self) -> bool:
        """True once the search must be kept: the journal has it, and the store."""
        return self.recorded is not None or (hasattr(self, "mlflow") and self.mlflow.is_open)

    @property
    def checkpoints(self) -> Path:
        """Folder of the checkpoints, by number of the trial."""
        return self.folder / CHECKPOINTS

    @property
    def storage(self) -> Storage | None:
        """Storage of the search; None without one."""
        url = self.space.engine.storage
        return None if url is None else Storage(url).at(self.name)

    def check(self) -> None:
        """End the start if a signal has come, or another process has asked for the end.

        Raises:
            Interrupted: if it shall end.
        """
        self.interrupts.check()
        now = time.monotonic()
        if now - self._looked_at > LOOK_SECONDS:
            self._looked_at = now
            if self.journal.stop_request() is not None:
                raise Interrupted(0)

    def say_debug(self, text: str) -> None:
        """Tell a user who asks for it, with --debug, how the start goes on."""
        if self.request.debug:
            self.view.phase(text)

    def check_over(self) -> None:
        """End what a thread does for the start, once the start has ended early.

        Raises:
            Interrupted: if it has.
        """
        if self.is_over:
            raise Interrupted(0)

    def give_up(self) -> None:
        """Let no thread go on for the start: the process could not end."""
        self.is_over = True


def say_waiting(view: View, interrupts: Interrupts) -> Wait:
    """Return a function that tells the user that another driver may still run the search."""

    def waiting(holder: Holder) -> None:
        view.phase(f"waiting whether {holder.text}, still runs the search")
        interrupts.check()

    return waiting


def edited_space(recorded: Search | None, name: str, request: SearchRequest) -> SearchSpace:
    """Return the space of a session.

    Raises:
        TunerError: if the edit is not allowed.
    """
    from tuner.trained.moved_data import as_recorded

    if recorded is None:
        return request.edit(None)
    space = as_recorded(request.edit(recorded.space), recorded.space, request.home)
    check_edit(recorded.space, space, name)
    return space


def check_inputs(start: Start) -> None:
    """Refuse within seconds what cannot work."""
    from tuner.driver.early_checks import check_early
    from tuner.notify.receivers import receivers_of
    from tuner.workers.ray_session import cluster_address

    start.receivers = receivers_of(start.request.notify)
    start.address = cluster_address(start.request.address)
    if start.recorded is not None:
        edits = changes(start.recorded.space, start.space)
        edited = f", with another {listed(edits, 'and')}" if edits else ""
        start.view.phase(f"{start.name} goes on from its journal{edited}")
    is_cluster = start.address is not None
    start.early_record = check_early(start.space, start.home, is_cluster=is_cluster)


def compile_early(start: Start) -> None:
    """Begin to measure the dtype and to compile, for which no data are needed.

    A warm start, whose tokenizer is not known yet, and a space whose estimated data break a rule
    measure when their data are there, and their workers compile.
    """
    from tuner.space.estimate import estimated_facts
    from tuner.workers.products import begin_measurement

    start.products, recorded = None, start.recorded
    if start.address is not None or (recorded is None and start.space.init_from is not None):
        return
    facts = estimated_facts(start.space) if recorded is None else recorded.facts
    if recorded is None:
        try:
            start.space.spec(start.space.defaults(), facts, 0)
        except ValueError:  # an estimate may break a rule; the data say whether they do
            return
        start.products = begin_measurement(start.space, facts, start.home.calibration)
    if start.products is not None:
        start.ray.callback(start.products.end)
    last = recorded.session if recorded else None
    begin_compilation(start.space, facts, last, start.products, start.check_over)


def prepare_data(start: Start) -> None:
    """Find the warm start, prepare the data, and check that the space fits them."""
    from model.corpus.prepare import prepare
    from tuner.driver.early_checks import check_facts
    from tuner.space.conflicts import context_lengths
    from tuner.trained.moved_data import present_space
    from tuner.trained.warm_start import warm_started
    from tuner.validation.data_notes import data_notes

    recorded, start.start = start.recorded, None
    if recorded is None:
        start.space, start.start = warm_started(start.space, start.home)
    present = start.space if recorded is None else present_space(start.space, start.home)
    with start.view.progress() as on_progress:
        corpora = start.home.corpora

        def checked(progress: Progress) -> None:
            start.check()
            on_progress(progress)

        corpus = prepare(present.data, present.tokenizer, corpora, on_progress=checked)
    start.corpus = corpus
    if recorded is None:
        start.facts = check_facts(start.space, corpus, start.start)
        for note in data_notes(corpus, context_lengths(start.space, start.facts.vocab_size)):
            start.view.phase(note)
        return
    start.facts = recorded.facts
    fingerprints = corpus.data_fingerprint, corpus.tokenizer_fingerprint
    if fingerprints != (start.facts.data_fingerprint, start.facts.tokenizer_fingerprint):
        raise TunerError(
            f"the data of {start.name} changed since it began; restore them to resume it, or "
            f"start a new search"
        )


def claim_bucket(start: Start) -> None:
    """Claim the search in its storage, to which the journal will be sent."""
    start.mirror, storage = None, start.storage
    if storage is None:
        return
    from tuner.storage.mirror import begin_mirror

    if start.start is not None:
        start.start.keep(start.home)
    waiting = say_waiting(start.view, start.interrupts)
    start.mirror = begin_mirror(storage, start.home, start.facts, start.journal, waiting)
    start.ends.callback(_close_mirror, start, start.mirror)


def _close_mirror(start: Start, mirror: Follower) -> None:
    if mirror.close(_MIRROR_SECONDS):
        reason = mirror.reason or f"the storage {start.space.engine.storage} did not answer in time"
        start.view.phase(f"{reason}; it lacks the end of the journal, which a resumed search sends")


def measure_dtype(start: Start) -> None:
    """Begin to measure which dtype is faster on this machine's CPU, in a process, if none does."""
    from tuner.workers.products import begin_measurement

    if start.recorded is not None or start.products is not None:
        return
    start.products = begin_measurement(start.space, start.facts, start.home.calibration)
    if start.products is not None:
        start.ray.callback(start.products.end)


def begin_ray(start: Start) -> None:
    """Start Ray, or join the cluster."""
    start.session = start_ray(
        start.ray, start.address, start.corpus, start.home, start.view, start.interrupts,
        start.check, storage=start.space.engine.storage, debug=start.request.debug,
    )  # fmt: skip


def begin_workers(start: Start) -> None:
    """Start the workers: each takes seconds to import torch."""
    start.team = start_team(
        start.name, start.space, start.home, start.corpus, start.facts,
        start.recorded.session if start.recorded else None, start.view, start.check,
        start.session, start.products,
    )  # fmt: skip


def learn(start: Start) -> None:
    """Learn from other searches; a resumed search has what it learned in its journal."""
    from tuner.driver.learn import learned

    if start.recorded is not None:
        start.proposals = start.recorded.begun.proposals
        return
    start.proposals = learned(start.space, start.facts, start.home, start.name)
    for sentence in (start.proposals.sentence, *start.proposals.left_out):
        if sentence:
            start.view.phase(sentence)


def begin_record(start: Start) -> None:
    """Write the search to the journal, if it begins, and open its record in MLflow if it goes on.

    The first trials of a search that begins need not wait for a local store.
    """
    from tuner.tracking.projection import MlflowProjection
    from tuner.tracking.tags import Tag
    from tuner.trained.recorded_trials import RecordedTrials

    recorded, journal = start.recorded, start.journal
    if recorded is None:
        if start.start is not None:
            start.start.keep(start.home)
        text = start.request.space_text or start.space.model_dump_json(indent=2)
        description = start.start.description if start.start else ""
        begun = SearchBegun(
            start.space, text, start.facts, description, start.proposals,
            start.team.devices.trial_bytes,
        )  # fmt: skip
        journal.append(begun)
    else:
        begun = recorded.begun
    start.trial_bytes = begun.memory_bytes
    journal.check_epoch()
    corpus = start.corpus
    start.trials = RecordedTrials(start.early_record, start.home)
    start.mlflow = MlflowProjection.of(
        start.home, start.name, begun, lambda search: corpus,
        resume=recorded is not None, may_write=journal.may_write,
    )  # fmt: skip
    if recorded is None and start.early_record is None:
        return
    start.mlflow.open()
    previous = start.mlflow.runs.previous
    check_digest(start.name, journal.entries, previous.tags.get(Tag.JOURNAL) if previous else None)


STEPS: Sequence[Step[Start]] = (
    Step("checks", check_inputs),
    Step("compilation", compile_early),
    Step("data", prepare_data),
    Step("sources", learn),
    Step("bucket", claim_bucket),
    Step("dtype", measure_dtype),
    Step("ray", begin_ray),
    Step("workers", begin_workers),
    Step("record", begin_record),
)
