"""A search at a URL: states of trials and the journal, in a bucket that all machines reach.

Main names: `Storage`, `States`, `JournalMirror`, `restore`.
"""
