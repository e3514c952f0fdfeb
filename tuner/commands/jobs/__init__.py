"""Commands for searches that run in other processes: submit, status, attach, logs, stop."""
