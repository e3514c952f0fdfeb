"""`tuner transfer`: from the proxy of a search to its target; face `run_transfer` of `proxy.py`."""
