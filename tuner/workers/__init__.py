"""Training processes on Ray: devices, the actor that runs an `Engine`, its client, the watchdog.

Main names: `Assignment`, `Worker`, `TrialClient`, `start_workers`, `Devices`, `Watchdog`.
"""
