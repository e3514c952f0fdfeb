"""The service for everybody who shares the machines: a queue, an API, users.

A server is one more reader of the journals: drivers are processes of their own, and what its
database holds is in no journal. Main names: `plan`, `Database`, `Dispatcher`, `Service`, `serve`.
"""
