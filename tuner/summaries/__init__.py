"""Recorded searches and trials as frozen objects, the ones that `list`, `show` and `compare` print.

Main names: `RecordedSearches`, `SearchTable`, `ParameterGroups`, `TrialSummary`, `TrialComparison`,
`TrialConfiguration` (for spaces and other trainers).
"""
