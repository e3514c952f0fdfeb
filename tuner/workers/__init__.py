"""Training processes on Ray: devices, the actor and its engine, client, orders, the watchdog.

Main names: `Assignment`, `Orders`, `Worker`, `BatchReader`, `start_workers`, `Devices`, `Watchdog`.
"""
