"""The event log of a search: written before anything is done, folded by readers and followers.

Main names: `Journal`, `read_journal`, `read_search`, `Search`, `Follower`, `Projection`, `repeat`,
`check_edit`, `request_edit`, and the events: `SearchBegun`, `SearchEdited`, `SessionBegun`,
`TrialBegun`, `TrialResumed`, `Reported`, `TrialFailed`, `WorkersChanged`, `NodeLost`,
`SearchStalled`, `MessageSent`, `SessionEnded`.
"""
