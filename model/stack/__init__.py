"""K models of one architecture as one set of tensors: planned, run, updated, copied.

Main names: `Stack`, `QuantumPlan`.
"""
