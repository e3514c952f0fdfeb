"""What the best trials of a search write, for its report."""

from __future__ import annotations

from tuner.errors import RecordError
from tuner.home import Home
from tuner.record import Record
from tuner.result import SearchResult

_MOST_TRIALS = 3
_TOKENS = 150


def samples_of(result: SearchResult, home: Home, prompt: str = "") -> dict[int, str]:
    """A short text of each of the best trials whose weights were kept, the winner's first.

    Args:
        result: of the search.
        home: where it lives.
        prompt: what the texts begin with; by default they begin a document.

    Returns:
        Trial → its text, the prompt included. Empty if no weights were kept, and for
        encoder–decoders, which would need something to read.

    Raises:
        StoreError: if the tracking store cannot be used.
    """
    # not imported with the module: they load torch
    from model.generation_settings import GenerationSettings
    from tuner.generate import check_written, sample
    from tuner.trained import kept_trial

    finished = [row for row in (result.best, *result.ranked) if row.has_finished]
    rows = list({row.number: row for row in finished}.values())[:_MOST_TRIALS]
    record = Record(home.tracking_uri)
    found = {}
    for row in rows:
        run = result.run_ids.get(row.number)
        if run is None or row.spec.architecture.n_encoder_layers:
            continue
        try:
            trained = kept_trial(record, record.trial(run), home)
            if trained is not None:
                check_written(trained)
                found[row.number] = trained
        except RecordError:
            continue
    if not found:
        return {}
    texts = sample(list(found.values()), prompt, settings=GenerationSettings(max_tokens=_TOKENS))
    return {number: prompt + text for number, text in zip(found, texts, strict=True)}
