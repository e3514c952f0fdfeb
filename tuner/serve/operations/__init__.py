"""What users have done with searches: reports, exports, replays, texts; each a process of its own.

An operation is a command of tuner whose output lies in a folder, so neither torch nor MLflow come
into the memory of the server, and a server that ends interrupts none. Main names: `Operations`,
`Operation`, `Wish`.
"""
