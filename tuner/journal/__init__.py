"""The event log of a search, on disk before anything is done; reading it again resumes the search.

Main names: `Journal`, `read_journal`, `JournaledSearch`, `repeat`, `check_edit`, and the events:
`SearchBegun`, `SessionBegun`, `TrialBegun`, `Reported`, `TrialFailed`, `TrialEnded`,
`SessionEnded`.
"""
