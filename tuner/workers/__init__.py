"""Training processes on Ray: devices, the actor that runs an engine, its client, the watchdog.

Main names: `Assignment`, `Orders`, `Worker`, `BatchReader`, `start_workers`, `Devices`, `Watchdog`.
"""
