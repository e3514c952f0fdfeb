"""A byte-level BPE: train, encode, decode, and the file formats of other libraries.

Main names: `Tokenizer`, `train_bpe`, `load_tokenizer`.
"""
