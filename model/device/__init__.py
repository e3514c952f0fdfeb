"""What a device is and does: precision, memory, asynchronous copies, versions that bits depend on.

Main names: `Precision`, `environment`.
"""
