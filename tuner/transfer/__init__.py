"""Measures whether a proxy stands for its target.

Main names: `check_coordinates` with `family` and `draw_check`; `measure` with `sizes_of`, `judge`
and `draw_sweeps`; `target_space`.
"""
