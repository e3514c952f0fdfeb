"""Leases: of all processes that could write a search, one may, also where locks do not work.

`holder` says who has a lease, and whether that process is alive; `lease` is the rule, on any store;
`folder` is the store in the folder of a search, with its `lock`. `storage` has a store in a bucket.

Main names: `Lease`, `Holder`, `Life`, `LeaseStore`, `claim_folder`, `locked`, `is_running`,
`StopRequest`.
"""
