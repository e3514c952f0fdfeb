"""Training processes on Ray: devices, the actor that runs an `Engine`, its client, the watchdog.

Main names: `Worker`, `start_workers`, `Watchdog`.
"""
