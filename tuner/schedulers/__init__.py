"""Schedulers: which trials continue, pause, resume, stop or are copied; one paper per file.

Main names: `SCHEDULERS`, the registry; `Scheduler`, the protocol; `Decision`, its answers.
"""
