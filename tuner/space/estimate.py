"""Estimates of a search before it runs: facts of unread data, and training tokens."""

from __future__ import annotations

from model.sources.registry import text_bytes
from model.tokenizer.load import vocab_size_of
from tuner.space.cool_down import branch_tokens
from tuner.space.data_facts import DataFacts
from tuner.space.rungs import rungs
from tuner.space.space import SearchSpace

# Share of the trials that `median` stops, and the share of their budget that they use. Guesses: the
# true shares depend on how much the curves cross.
_MEDIAN_STOPS = 0.5
_MEDIAN_STOPS_AFTER = 1 / 3
# Measured on the standard library with a vocabulary of 2,048.
_BYTES_PER_TOKEN = 3.1
_BYTES_PER_PAIR = 2_000  # most of the library is in no pair
ASSUMED_BYTES = 1_000_000_000  # of data whose size is unknown before it is read


def estimated_facts(space: SearchSpace) -> DataFacts:
    """Return facts of the data, estimated from the bytes of the source.

    Raises:
        CorpusError: if the source or the tokenizer cannot be read.
    """
    size = text_bytes(space.data)
    num_bytes = ASSUMED_BYTES if size is None else size
    amount = num_bytes / (_BYTES_PER_PAIR if space.data.pairs else _BYTES_PER_TOKEN)
    held_out = space.data.validation_fraction
    vocab_size = vocab_size_of(space.tokenizer)
    longest = max(shape.context_length for shape in space.shapes(vocab_size))
    return DataFacts(
        vocab_size=vocab_size,
        train_size=max(longest + 1, round(amount * (1 - held_out))),
        validation_size=max(longest + 1, round(amount * held_out)),
        data_fingerprint="",
        tokenizer_fingerprint="",
        has_pairs=space.data.pairs,
    )


def expected_tokens(space: SearchSpace, corpus: DataFacts) -> tuple[int, int]:
    """Return the training tokens of a search without early stopping, and an estimate with it.

    Both include the shorter budgets and the retraining of the best trials (`confirm:`). The first
    trial is never stopped, unless `search.defaults` says otherwise; one trial at least trains to
    the end in any case.
    """
    trial, trials = space.mean_tokens(corpus), space.search.trials
    budget, report = space.budget_tokens(corpus), space.report_tokens(corpus)
    if space.search.defaults == "full":
        search = trial * (1 + _spent(space, trials - 1, report, budget))
    else:
        search = trial * max(1, _spent(space, trials, report, budget))
    branches = trials * branch_tokens(space, corpus)
    search += branches
    if space.search.max_tokens is not None:
        search = min(search, space.search.max_tokens)
    confirmation = trial * confirmations(space)
    return round(trial * trials + branches + confirmation), round(search + confirmation)


def confirmations(space: SearchSpace) -> int:
    """Return the number of trials of the confirmation; 0 for several objectives."""
    return min(space.num_finalists, space.search.trials) * space.confirm.seeds


def _spent(space: SearchSpace, trials: int, report: int, budget: int) -> float:
    """Return the tokens of some trials, in units of a complete budget."""
    scheduler, eta = space.search.scheduler, space.search.reduction_factor
    if scheduler == "asha":
        is_late = space.search.asha == "stop"
        return _asha(trials, rungs(report, eta, budget), eta, budget, is_late=is_late)
    if scheduler in ("hyperband", "bohb"):
        return _hyperband(trials, eta, report, budget)
    if scheduler == "median":
        return trials * (1 - _MEDIAN_STOPS * (1 - _MEDIAN_STOPS_AFTER))
    return trials  # pbt and pb2 replace what they stop


def _asha(trials: float, levels: list[int], eta: int, budget: int, *, is_late: bool) -> float:
    """Return the tokens under `asha`: a share 1/η of the trials continues at each rung.

    The stopping form continues more trials, because it compares each trial with earlier ones only:
    the n-th trial continues if it is one of the best ⌈n/η⌋, which has probability ⌈n/η⌋/n in random
    order.
    """
    spent, before = 0.0, 0
    for rung in levels:
        spent += trials * (rung - before) / budget
        before = rung
        if is_late:
            trials = sum(-(-n // eta) / n for n in range(1, round(trials) + 1))
        else:
            trials /= eta
    return spent + trials * (budget - before) / budget


def _hyperband(trials: int, eta: int, report: int, budget: int) -> float:
    """Return the tokens under `hyperband`: brackets repeat until no trials are left."""
    s_max = len(rungs(1, eta, -(-budget // report) + 1)) - 1
    sizes: dict[int, int] = {s: -(-(s_max + 1) * eta**s // (s + 1)) for s in range(s_max, -1, -1)}

    def bracket(s: int, size: int) -> float:
        spent, before = 0.0, 0
        for k in range(s_max - s, s_max):
            rung = report * int(eta**k)
            spent += size * (rung - before) / budget
            before, size = rung, max(1, size // eta)
        return spent + size * (budget - before) / budget

    rounds, rest = divmod(trials, sum(sizes.values()))
    spent = rounds * sum(bracket(s, size) for s, size in sizes.items())
    for s, size in sizes.items():
        last = min(rest, size)
        spent += bracket(s, last) if last else 0
        rest -= last
    return spent
