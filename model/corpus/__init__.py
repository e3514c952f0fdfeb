"""Corpora: documents prepared once into memory-mapped token ids, then read as sequences by number.

Main names: `prepare`, `Corpus`, `Dataset`, `Batch`, `data_order`.
"""
