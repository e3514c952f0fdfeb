from __future__ import annotations

from rich.console import Console

from tuner.summary import _next_commands


def test_next_commands_find_the_home_that_was_given() -> None:
    console = Console(width=200)
    with console.capture() as captured:
        console.print(_next_commands("lm-1", "my runs"))
        console.print(_next_commands("lm-1", None))
    commands = [line.split("   ")[0].strip() for line in captured.get().splitlines()]
    assert commands == [
        "tuner ui --home 'my runs'",
        "tuner replay --home 'my runs'",
        "tuner show --search lm-1 --home 'my runs'",
        "tuner ui",
        "tuner replay",
        "tuner show --search lm-1",
    ]
