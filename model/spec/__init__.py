"""Specification of a trial: hyperparameters (the symbol table), architecture, data, budget, hash.

Main names: `TrialSpec`, `Hyperparameters`, `SYMBOL_TABLE`, `Architecture`, `DataConfig`,
`TokenizerConfig`, `derive`, `learning_rate`. No module here imports torch.
"""
