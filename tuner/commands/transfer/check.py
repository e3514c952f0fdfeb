"""`tuner transfer --check`: are the activations of small and large models as large?"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from tuner.commands.output import consoles
from tuner.errors import TunerError
from tuner.home.home import Home
from tuner.results.result import SearchResult
from tuner.space.settings import Proxy, target_text


def check_activations(
    options: argparse.Namespace, result: SearchResult, proxy: Proxy, home: Home, output: Path
) -> dict[str, Any]:
    """Print a verdict on each quantity and draw it; return them for --json."""
    spec = result.best.spec
    if spec.architecture.n_encoder_layers:
        raise TunerError("the check is for language models, and these have an encoder")
    from model.corpus.prepare import prepare
    from tuner.terminal.progress import show_progress
    from tuner.transfer.coordinate_check import STEPS, check_coordinates
    from tuner.transfer.family import family
    from tuner.transfer.picture import draw_check

    results, progress = consoles(options)
    with show_progress(progress) as on_progress:
        corpus = prepare(spec.data, spec.tokenizer, home.corpora, on_progress=on_progress)
    members = family(spec.architecture.target_architecture, proxy)

    def on_trained(number: int, count: int) -> None:
        member = members[number - 1]
        progress.print(f"model {number}/{count}: {member.axis} {member.size}")

    found = check_coordinates(
        spec, corpus, members, seeds=options.seeds or 5, steps=STEPS, device=options.device,
        on_trained=on_trained,
    )  # fmt: skip
    about = f"activations between proxy and target, {target_text(spec.architecture)}"
    draw_check(found, STEPS, output, result.name, about)
    rows = [
        [
            v.axis, v.quantity, f"{v.slope:+.2f} ± {v.half_width:.2f}",
            f"{v.ratios[0]:.2f} … {v.ratios[1]:.2f}", "kept" if v.is_kept else "moves",
        ]
        for v in found.verdicts
    ]  # fmt: skip
    columns = ["over", "quantity", "exponent", "ratios to the largest", "verdict"]
    results.table(f"{result.name}: {about}", columns, rows)
    moving = [f"{v.quantity} over the {v.axis}" for v in found.verdicts if not v.is_kept]
    sentence = (
        f"Not all activations keep their sizes: {', '.join(moving)}. Do not trust the transfer."
        if moving
        else "All activations keep their sizes, which transfer needs, but which does not prove it."
    )
    results.print(sentence)
    results.write_line(f"wrote {output}")
    return {
        "kept": found.is_kept,
        "picture": str(output),
        "verdicts": [
            {
                "axis": v.axis, "quantity": v.quantity, "exponent": v.slope,
                "half_width": v.half_width, "ratios": list(v.ratios), "kept": v.is_kept,
            }
            for v in found.verdicts
        ],
    }  # fmt: skip
