"""Decides a search: sampler, scheduler, lanes, confirmation.

Main names: `Conductor`, `Board`, `Trial`, `Outcome`. Decisions are a function of the calls made to
the conductor: no module here has a clock, files or Ray.
"""
