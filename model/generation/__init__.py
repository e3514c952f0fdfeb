"""Generation of text from trained weights, with a cache of keys and values.

Main names: `generate`, `GenerationSettings`, `Prompt`.
"""
