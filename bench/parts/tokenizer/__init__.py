"""Parts of tokenizer.py: corpora, the sides that train and encode, result tables."""
