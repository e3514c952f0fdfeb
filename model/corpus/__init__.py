"""From documents to sequences: prepared once into memory-mapped token ids, then read by number.

Main names: `prepare`, `Corpus`, `Dataset`, `Batch`, `data_order`.
"""
