"""Search spaces: parameters, conditions and settings, and the specification of a draw.

Main names: `SearchSpace`, `Parameter`, `Objective`.
"""
