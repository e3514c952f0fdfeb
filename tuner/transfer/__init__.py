"""Measures whether a proxy stands for its target.

Main names: `check_coordinates`, `family`, `draw_check`.
"""
