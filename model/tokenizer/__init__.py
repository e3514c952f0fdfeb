"""A byte-level BPE: training, encoding, decoding, and the file formats of other libraries.

Main names: `Tokenizer`, `train_bpe`, `load_tokenizer`.
"""
