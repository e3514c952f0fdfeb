"""The event log of a search, on disk before anything is done; reading it again resumes the search.

Main names: `Journal`, `JournaledSearch`, and the events in `events`.
"""
