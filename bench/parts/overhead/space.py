"""Search space of overhead.py: its trials are stubs, so that sizes do not matter.

Format it with `texts`, `reports`, `trials`, `sampler`, and the `slots` of each of some `workers`.
"""

from __future__ import annotations

SPACE = """\
name: overhead
data: {{files: {texts}}}
tokenizer: {{vocab_size: 300}}
model: {{d_model: 16, n_layers: 1, n_heads: 2, context_length: 16}}
hyperparameters:
  α_max:     {{log: [1e-4, 3e-2]}}
  α_min:     {{fraction_of: α_max, log: [0.01, 0.5]}}
  T_warmup:  {{fraction_of: T_total, uniform: [0.0, 0.2]}}
  β1:        {{uniform: [0.8, 0.95]}}
  β2:        {{choice: [0.95, 0.98, 0.99, 0.999]}}
  λ:         {{log: [5e-3, 1.0]}}
  τ:         {{log: [0.25, 4.0]}}
  B:         {{choice: [8, 16, 32]}}
  optimizer: adamw
budget: {{tokens: 240_000, reports: {reports}}}
engine: {{workers: {workers}, slots: {slots}, device: cpu}}
search: {{trials: {trials}, sampler: {sampler}, scheduler: none}}
confirm: off
"""
