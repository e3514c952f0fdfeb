"""`tuner transfer`: from the proxy of a search to its target; face `run_transfer` of `proxy.py`.

And `tuner scaling`: from several sizes to a larger one; face `run_scaling` of `scaling.py`.
And `tuner suggest`: from all earlier searches to the next; face `run_suggest` of `suggest.py`.
"""
