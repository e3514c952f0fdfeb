"""The Transformer as functions of named weights with a leading K; no operation mixes slots.

Main names: `LanguageModel`, `EncoderDecoder`, `TransformerLM`, the layers and losses.
"""
