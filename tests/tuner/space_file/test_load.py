"""Mistakes of search-space files. `▲` marks the place that a message must point at."""

from __future__ import annotations

import itertools
import os
import random
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.errors import CorpusError
from model.tokenizer.tokenizer import Tokenizer
from tests.shipped import shipped
from tuner.errors import Mistake, SpaceError
from tuner.space.conflicts import conflicts
from tuner.space.space import SearchSpace
from tuner.space_file.load import load_space, located
from tuner.space_file.overrides import Override

SHIPPED = sorted(Path(__file__).parents[3].glob("search_spaces/*.yaml"))
LM = next(path for path in SHIPPED if path.name == "lm.yaml").read_text(encoding="utf-8")
BUDGET = "budget: {tokens: 100000}\n"


def hyper(entry: str) -> str:
    """A file with some hyperparameters and a budget."""
    lines = "".join(f"  {line}\n" for line in entry.splitlines())
    return f"hyperparameters:\n{lines}{BUDGET}"


def split_marks(text: str) -> tuple[str, list[tuple[int, int]]]:
    """A text without its marks, and line and column of each mark."""
    places = []
    for number, line in enumerate(text.split("\n"), start=1):
        for count, piece_end in enumerate(i for i, c in enumerate(line) if c == "▲"):
            places.append((number, piece_end - count + 1))
    return text.replace("▲", ""), places


def mistakes_of(path: Path, text: str) -> list[Mistake]:
    path.write_text(text, encoding="utf-8")
    with pytest.raises(SpaceError) as caught:
        load_space(path)
    for mistake, line in zip(caught.value.mistakes, str(caught.value).split("\n"), strict=True):
        assert line == f"{path}:{mistake.line}:{mistake.column} {mistake.message}"
        assert ".." not in mistake.message.replace("...", "")
        assert not mistake.message.endswith((".", ";", ":", " "))
    return caught.value.mistakes


MISTAKES = {
    # keys
    "top key": ("▲budgt: {tokens: 1}", "unknown key budgt; did you mean budget?"),
    "top key, strange": (BUDGET + "▲qqq: 1", "unknown key qqq; valid names: name, model,"),
    "section key": ("budget: {tokens: 9, ▲report: 3}", "key in budget: report; did you mean rep"),
    "search key": (BUDGET + "search: {▲sheduler: asha}", "did you mean scheduler?"),
    "name in hyperparameters": (hyper("▲learning_rat: 0.1"), "did you mean learning_rate?"),
    "symbol": (hyper("▲a_max: 0.1"), "did you mean α_max?"),
    "python name": (hyper("▲batchsize: 8"), "did you mean batch_size?"),
    "capitals": (hyper("▲TAU: 1"), "did you mean tau?"),
    "no near name": (hyper("▲zzzzzz: 1"), "unknown hyperparameter zzzzzz; 'tuner symbols' lists"),
    "merge key": (hyper("<<: {▲qqq: 8}"), "unknown hyperparameter qqq"),
    "size": (BUDGET + "model: {▲n_layer: 2}", "unknown entry of model: n_layer; did"),
    "vocab_size": (BUDGET + "model: {▲vocab_size: 300}", "belongs to the section tokenizer:"),
    "twice": (hyper("B: 8\n▲B: 16"), "B is given twice; keep one"),
    "two spellings": (hyper("α_max: 0.1\n▲max_lr: 0.2"), "max_lr and α_max are the same"),
    "loguniform": (hyper("α_max: {▲loguniform: [1e-4, 1e-2]}"), "α_max: unknown key loguniform; write {log: [low, high]}, {uniform: [low, high]}, {int: [low, high]} or {choice: [a, b]}"),
    "W&B": (hyper("α_max: {▲distribution: log_uniform_values, min: 1e-4, max: 0.1}"), "unknown keys distribution, min and max; write {log: [low, high]}, "),
    "W&B, values": (hyper("optimizer: {▲values: [adam, lion]}"), "unknown key values; write {log"),
    "W&B, constant": (hyper("τ: {▲distribution: constant, value: 1}"), "unknown key distribution; write"),
    "Optuna": (hyper("α_max: {▲low: 1e-4, high: 1e-2, log: true}"), "unknown keys low and high; write {log:"),
    "Optuna, size": (BUDGET + "model: {n_layers: {▲low: 1, high: 4}}", "n_layers: unknown keys low and high; write"),
    "distribution, near": (hyper("B: {▲choise: [8]}"), "did you mean choice?"),
    # the tokenizer
    "tokenizer and sizes": (
        BUDGET + "tokenizer: ▲{file: a.json, vocab_size: 300}",
        "file already determines vocab_size and pattern; give either file or",
    ),
    "no tokenizer": (BUDGET + "tokenizer: {file: ▲a.json}", "cannot read /"),
    "no tokenizer file": (BUDGET + "tokenizer: {file: ▲''}", "tokenizer.file must be a text that"),
    # where trials start
    "no start": (BUDGET + "init_from: ▲lm", "init_from must be a mapping with the keys search, run"),
    "two starts": (BUDGET + "init_from: ▲{search: lm, run: a}", "exactly one of search, run, check"),
    "start of nothing": (BUDGET + "init_from: ▲{optimizer_state: true}", "huggingface, got none"),
    "start, key": (BUDGET + "init_from: {▲serch: lm}", "did you mean search?"),
    "start, number": (BUDGET + "init_from: {run: ▲12345678}", "must be a text; quote it if"),
    "start, no file name": (
        BUDGET + "init_from: {checkpoint: ▲" + 300 * "a" + "}", "there is no file /",
    ),
    "data as text": (
        BUDGET + "data: ▲my.txt", "data must be a mapping such as {files: my.txt}, got my.txt",
    ),
    "start, no file": (BUDGET + "init_from: {checkpoint: ▲a.st}", "there is no file /"),
    # shapes of values
    "bare list": (hyper("B: ▲[8, 16]"), "B: a list needs a distribution: {choice: [8, 16]}"),
    "no value": (hyper("B:▲"), "B has no value; give one"),
    "empty mapping": (hyper("B: ▲{}"), "needs exactly one of value, uniform"),
    "two distributions": (hyper("β1: ▲{log: [0.1, 0.2], uniform: [0, 0.5]}"), "got log and unif"),
    "nested list": (hyper("B: {choice: ▲[[8], 16]}"), "choice takes a list of values"),
    "value of list": (hyper("B: {value: ▲[8]}"), "value takes one number or name, got [8]"),
    "empty choice": (hyper("B: {choice: ▲[]}"), "choice takes a list of values, got []"),
    "same choice twice": (hyper("λ: {choice: ▲[1, 1.0]}"), "choice takes different values"),
    "one end": (hyper("λ: {log: ▲[0.1]}"), "log takes two numbers, [low, high], got [0.1]"),
    "text as end": (hyper("λ: {log: ▲[a, 1]}"), "log takes two numbers, [low, high], got [a, 1]"),
    "boolean as end": (hyper("λ: {uniform: ▲[false, 1]}"), "got [false, 1]"),
    "not a mapping": (BUDGET + "hyperparameters: ▲[B]", "must be a mapping from names"),
    "section as text": ("budget: ▲much", "budget must be a mapping with the keys tokens,"),
    "empty file": ("▲", "the file is empty; a search space has the keys name"),
    "only a comment": ("▲# nothing", "the file is empty"),
    "a list": ("▲- 1", "the file has no keys"),
    "a tag": (hyper("B: ▲!!python/object:os.x 8"), "the tag !!python/object:os.x is not supported"),
    "bad YAML": ("a: {b: 1\n▲", "not valid YAML: expected ',' or '}'"),
    # ranges
    "reversed": (hyper("α_max: {log: ▲[1e-2, 1e-4]}"), "reversed, got [0.01, 0.0001]; write"),
    "empty": (hyper("α_max: {log: ▲[1e-2, 0.01]}"), "empty, got [0.01, 0.01]; give the number"),
    "log of zero": (hyper("λ: {log: [▲0, 1]}"), "λ: the low end must be above 0 on a log scale, g"),
    "log of negative": (hyper("λ: {log: [▲-1, 1]}"), "above 0 on a log scale, got -1"),
    "int_log of zero": (hyper("T_warmup: {int_log: [▲0, 5]}"), "above 0 on a log scale"),
    "infinite": (hyper("α_max: {uniform: ▲[0.1, .inf]}"), "two numbers, [low, high], got [0.1, .i"),
    "too large": (hyper("α_max: {uniform: [0.1, ▲1e999]}"), "1e999 is not a valid number"),
    "outside": (hyper("α_max: {log: [1e-4, ▲1000]}"), "α_max must be a number in (0, 100], got 10"),
    "open end": (hyper("p_drop: {uniform: [0, ▲1]}"), "p_drop must be a number in [0, 1), got 1"),
    "constant outside": (hyper("β1: ▲1.5"), "β1 must be a number in [0, 1), got 1.5"),
    "choice outside": (hyper("β2: {choice: [0.9, ▲1]}"), "β2 must be a number in [0, 1), got 1"),
    "text": (hyper("α_max: ▲abc"), "α_max must be a number in (0, 100], got abc"),
    "quoted number": (hyper("α_max: ▲'0.1'"), "in (0, 100], got the text '0.1' (remove the quotes)"),
    "quoted choice": (hyper("B: {choice: [8, ▲'16']}"), "got the text '16' (remove the quotes)"),
    "quoted end": (hyper("λ: {log: ▲['0.1', 1]}"), "[low, high], got [the text '0.1' (remove the quotes), 1]"),
    "quoted size": (BUDGET + "model: {d_model: ▲'64'}", "d_model must be a whole number, got the text '64'"),
    "quoted setting": ("budget: {tokens: ▲'1000'}", "must be a whole number, got the text '1000' (re"),
    "date": (hyper("α_max: ▲2024-01-01"), "must be a number in (0, 100], got 2024-01-01"),
    "smaller than float32": (hyper("α_max: {log: [▲1e-320, 1e-310]}"), "at least 1.2e-38, the smallest float32, got 9.99989e-321"),
    "hyperparameter on top": (BUDGET + "▲α_max: 0.1", "unknown key α_max; did you mean hyperparameters.α_max?"),
    "size on top": (BUDGET + "▲d_model: 64", "unknown key d_model; did you mean model.d_model?"),
    "setting on top": ("▲tokens: 64", "unknown key tokens; did you mean budget.tokens?"),
    "when, no near name": (hyper("γ: {value: 0.9, when: {▲qqq: bar}}"), "unknown name in when: qqq; 'tuner symbols' lists all"),
    "boolean": (hyper("B: ▲true"), "B must be a whole number in [1, 1e+06], got true"),
    "broken number": (hyper("B: ▲16.5"), "B must be a whole number in [1, 1e+06], got 16.5"),
    "huge count": ("hyperparameters: {T_total: ▲1e300}", "T_total must be a whole number"),
    "uniform count": (hyper("B: {uniform: ▲[8, 16]}"), "a whole number; use int instead of unifor"),
    "log count": (hyper("B: {log: ▲[8, 16]}"), "a whole number; use int_log instead of log"),
    "int rate": (hyper("τ: {int: ▲[1, 4]}"), "not a whole number; use uniform instead of int"),
    "log width": (BUDGET + "model: {d_ff: {log: ▲[64, 512]}}", "d_ff: it is a whole number; use choi"),
    "log layers": (BUDGET + "model: {n_layers: {log: ▲[1, 8]}}", "use int_log instead of log"),
    "int base": (BUDGET + "model: {rope_theta: {int: ▲[100, 200]}}", "use choice instead of int"),
    "broken ends": (hyper("T_warmup: {int: [▲1.5, 4]}"), "T_warmup must be a whole number in [0,"),
    "range of names": (hyper("optimizer: {uniform: ▲[0, 1]}"), "a name, not a number; use choice"),
    "unknown optimizer": (hyper("optimizer: ▲admw"), "lion | muon, got admw; did you mean adamw?"),
    "off for others": (hyper("λ: ▲off"), "λ must be a number in [0, 10], got off"),
    # fraction_of and when
    "fraction of unknown": (hyper("α_min: {fraction_of: ▲α_mx, value: 0.1}"), "did you mean α_max"),
    "fraction of a name": (hyper("λ: {fraction_of: ▲optimizer, value: 1}"), "optimizer, whose values are n"),
    "fraction of itself": (hyper("λ: {fraction_of: ▲wd, value: 1}"), "of wd, which is itself"),
    "fraction of no near name": (
        hyper("λ: {fraction_of: ▲optimiser, value: 1}"),
        "fraction of optimiser; name a hyperparameter with numbers, such as T_total",
    ),
    "fraction of a size": (
        hyper("λ: {fraction_of: ▲d_model, value: 1}"),
        "fraction of d_model; name a hyperparameter with numbers, such as T_total",
    ),
    "fraction of a list": (hyper("λ: {fraction_of: ▲[B], value: 1}"), "a fraction of [B]"),
    "B as fraction": (hyper("B: {▲fraction_of: α, value: 1}"), "B cannot be a fraction"),
    "a name as fraction": (hyper("schedule: {▲fraction_of: B, value: 1}"), "schedule cannot be"),
    "a size as fraction": (BUDGET + "model: {d_ff: {▲fraction_of: d_model, value: 4}}", "d_ff can"),
    "negative share": (hyper("α_min: {fraction_of: α_max, uniform: [▲-1, 1]}"), "at least 0, got"),
    "whole share": (hyper("T_warmup: {fraction_of: T_total, int: ▲[0, 1]}"), "a fraction is not a"),
    "share of text": (hyper("α_min: {fraction_of: α_max, value: ▲half}"), "at least 0, got half"),
    "circle of fractions": (
        hyper("α_max: ▲{fraction_of: α_min, value: 2}"),
        "α_max is a fraction of α_min is a fraction of α_max",
    ),
    "circle of two": (
        hyper("λ: ▲{fraction_of: p_drop, value: 1}\np_drop: {fraction_of: λ, value: 1}"),
        "λ is a fraction of p_drop is a fraction of λ; give one of them",
    ),
    "circle of conditions": (
        hyper("B: ▲{value: 8, when: {optimizer: sgd}}\noptimizer: {value: sgd, when: {B: 8}}"),
        "B depends on optimizer depends on B",
    ),
    "when of unknown": (hyper("γ: {value: 0.9, when: {▲optimiser: sgd}}"), "did you mean optimize"),
    "when without value": (hyper("γ: {value: 0.9, when: ▲momentum}"), "when takes a mapping"),
    "when of off for others": (
        hyper("γ: {value: 0.9, when: {λ: ▲off}}"), "λ must be a number in [0, 10], got off"
    ),
    "when of bad value": (
        hyper("γ: {value: 0.9, when: {optimizer: ▲momentom}}"), "did you mean momentum?"
    ),
    "when of itself": (hyper("λ: {value: 0.1, when: {▲λ: 0.1}}"), "cannot depend on itself"),
    "when of nothing": (hyper("γ: {value: 0.9, when: {optimizer: ▲[]}}"), "takes a value or a lis"),
    "when never holds": (
        hyper("γ: {value: 0.9, when: ▲{optimizer: momentum}}"),
        "when: optimizer is never momentum; it is adamw",
    ),
    "when of a range": (
        hyper("λ: {value: 0.1, when: ▲{α_max: 0.1}}\nα_max: {log: [0.1, 1]}"),
        "when: α_max is drawn from a range or derived; use a choice in the cond",
    ),
    "when of a derived row": (hyper("λ: {value: 0.1, when: ▲{T_warmup: 1}}"), "or derived; use"),
    "when excluded by another": (
        hyper(
            "optimizer: {choice: [adamw, sgd]}\nB: {choice: [8, 16], when: {optimizer: adamw}}\n"
            "▲λ: {value: 0.1, when: {optimizer: sgd, B: 8}}"
        ),
        "λ is never drawn, because its conditions exclude each other; change its when",
    ),
    # no effect
    "α with cosine": (hyper("▲α: 0.01"), "α has no effect with schedule cosine; did you mean α_ma"),
    "α with noam": (hyper("schedule: noam\n▲α: 1"), "schedule noam; it is used with schedule const"),
    "d with nesterov": (hyper("optimizer: nesterov\n▲d: 0.5"), "it is used with optimizer moment"),
    "cycle with wsd": (hyper("schedule: wsd\n▲T_cycle: 9"), "T_cycle has no effect with schedule w"),
    "γ with adamw": (hyper("▲γ: 0.9"), "γ has no effect with optimizer adamw; it is used with opt"),
    "β1 with sgd": (hyper("optimizer: {choice: [sgd, momentum]}\n▲β1: 0.9"), "sgd or momentum; it"),
    # sections
    "vocabulary": (BUDGET + "tokenizer: {vocab_size: ▲256}", "vocab_size must be at least 257, go"),
    "text for count": (BUDGET + "search: {trials: ▲'24'}", "search.trials must be a whole number,"),
    "boolean for count": (BUDGET + "search: {trials: ▲true}", "a whole number, got true"),
    "fraction for count": (BUDGET + "search: {trials: ▲2.5}", "a whole number, got 2.5"),
    "no trials": (BUDGET + "search: {trials: ▲0}", "search.trials must be at least 1, got 0"),
    "scheduler": (BUDGET + "search: {scheduler: ▲ash}", "median, pbt, pb2 or none, got ash; did you mean asha"),
    "mode": (BUDGET + "objective: {mode: ▲max}", "objective.mode must be min for val_loss, of wh"),
    "name": (BUDGET + "name: ▲a b", "name must be 1 to 64 letters"),
    "number as name": (BUDGET + "name: ▲12", "name must be a text; quote it"),
    "source": (BUDGET + "data: {source: ▲python-stdlibs}", "did you mean python-stdlib?"),
    "two sources": (
        BUDGET + "data: ▲{source: python-stdlib, files: [small.txt]}",
        "give exactly one of source, files and hub",
    ),
    "missing file": (BUDGET + "data: ▲{files: nowhere.txt}", "nowhere.txt: No such file"),
    "NUL in file": (BUDGET + 'data: ▲{files: "a\\0b"}', "null"),
    "numbers as files": (BUDGET + "data: {files: [▲1]}", "data.files must be a text"),
    "field of no pairs": (
        BUDGET + "data:\n  files: small.txt\n  source_field: ▲x",
        "source_field has no effect with files; it is for files with pairs: true",
    ),
    "pairs of texts": (
        BUDGET + "data: ▲{files: small.txt, pairs: true}\nmodel: {n_encoder_layers: 1}",
        "is not a table and so has no",
    ),
    "pairs of the library": (BUDGET + "data: {pairs: ▲true}", "there are no pairs in python-stdl"),
    "text for pairs": (BUDGET + "data: {pairs: ▲yes}", "data.pairs must be true or false, got yes"),
    "column of pairs": (
        BUDGET + "data:\n  column: ▲x\n  files: a.csv\n  pairs: true",
        "column has no effect with files with pairs: true; name source_field and target_field",
    ),
    "one field": (
        BUDGET + "data: ▲{files: a.csv, pairs: true, source_field: x, target_field: x}",
        "source_field and target_field are both 'x'; name two fields",
    ),
    "no budget": ("▲name: x", "exactly one of budget.tokens, budget.flops, T_total and N_epoch, got none"),
    "two budgets": (
        "hyperparameters: {T_total: 10}\nbudget: ▲{tokens: 10}",
        "exactly one of budget.tokens, budget.flops, T_total and N_epoch, got budget.tokens and T_total",
    ),
    "steps and epochs": ("▲hyperparameters: {t_total: 10, N_epoch: 1}", "got t_total and N_epoch"),
    "conditional budget": (
        "hyperparameters:\n  schedule: {choice: [cosine, constant]}\n"
        "  T_total: ▲{value: 10, when: {schedule: cosine}}",
        "T_total is the budget, so it cannot depend on a when",
    ),
    # what parts demand of each other
    "phases of wsd": (
        hyper("schedule: {choice: [cosine, wsd]}\nT_cooldown: {fraction_of: T_total, value: 0.9}\n"
              "T_warmup: ▲{fraction_of: T_total, uniform: [0, 0.2]}"),
        "T_warmup + T_cooldown must not exceed T_total, got",
    ),
    "pruning backwards": (
        hyper("s_final: {choice: [0, 0.5]}\nT_prune_start: ▲{fraction_of: T_total, value: 0.9}"),
        "T_prune_start must not exceed T_prune_end, got",
    ),
    "micro-batch": (
        hyper("B: {choice: [8, 12]}") + "engine: {micro_batch: ▲8}",
        "every B must be a multiple of the micro-batch 8, got B = 12",
    ),
    "micro-batch, default B": (BUDGET + "engine: {micro_batch: ▲5}", "micro-batch 5, got B = 16"),
    "slots": (BUDGET + "engine: {slots: ▲many}", "engine.slots must be a number, or auto, got many"),
    "no slots": (BUDGET + "engine: {slots: ▲0}", "engine.slots must be at least 1, got 0"),
    "dtype": (BUDGET + "engine: {dtype: ▲float16}", "engine.dtype must be"),
    "compile": (BUDGET + "engine: {compile: ▲maybe}", "engine.compile must be"),
    "storage": (BUDGET + "engine: {storage: ▲/data}", "engine.storage must be a URL, such as s3://bucket/folder, got /data"),
    "storage that is nothing": (BUDGET + "engine: {storage: ▲'s3://'}", "engine.storage must be a URL"),
    "storage, relative": (BUDGET + "engine: {storage: ▲'file://runs'}", "engine.storage must be a URL"),
    "storage with a password": (
        BUDGET + "engine: {storage: ▲'s3://me:hidden/word@bucket'}",
        "engine.storage must have no user, password or options; its library reads them from the environment or",
    ),
    "compile on a GPU": (
        BUDGET + "engine: {device: cuda, compile: ▲on}",
        "ticks are compiled on a CPU only, and engine.device is cuda; use auto or off",
    ),
    "tf32": (
        BUDGET + "engine: {device: cpu, dtype: ▲tf32}",
        "only GPUs of NVIDIA compute in tf32, and engine.device is cpu; use auto or float32",
    ),
    "mixed_bfloat16": (
        BUDGET + "engine: {device: cuda, dtype: ▲mixed_bfloat16}",
        "only CPUs compute in mixed_bfloat16, and engine.device is cuda; use auto or bfloat16",
    ),
    "B as long range": (hyper("B: ▲{int: [1, 1000]}"), "B must be a value, a choice or a grid"),
    "heads": (BUDGET + "model: ▲{n_heads: 5}", "d_model must be a multiple of n_heads"),
    "heads, choice": (BUDGET + "model: ▲{d_model: {choice: [64, 60]}, n_heads: 8}", "got 60 and 8"),
    "size too small": (BUDGET + "model: {n_layers: ▲0}", "n_layers must be at least 1, got 0"),
    "size as range": (BUDGET + "model: {d_model: {uniform: ▲[64, 96]}}", "use int instead of uni"),
    "size as long range": (BUDGET + "model: ▲{d_ff: {int: [64, 960]}}", "d_ff must be a value, a"),
    "theta as range": (BUDGET + "model: ▲{rope_theta: {log: [1e3, 1e5]}}", "rope_theta must be a"),
    "many shapes": (
        BUDGET + "model: ▲{n_layers: {int: [1, 20]}, d_model: {choice: "
        "[8, 16, 24, 32, 40, 48, 56, 64, 72, 80, 88, 96, 104]}}",
        "more than 256 different shapes",
    ),
    "long context": (
        BUDGET + "data: {files: [small.txt]}\nmodel: {context_length: ▲64}",
        "context_length 64 is longer than the data, which has 20 bytes",
    ),
    "large grid": (
        hyper("B: {grid: [8, 16]}\nλ: {grid: [0, 1, 2]}") + "search: {trials: ▲5}",
        "the grid has 6 points, but search.trials is 5; raise it",
    ),
    "α_min above α_max": (
        hyper("α_max: {log: [1e-3, 1e-1]}\nα_min: ▲{log: [1e-5, 1e-2]}"),
        "α_min must not exceed α_max, got 0.01 > 0.001; change one of their ranges",
    ),
    "α_min above the default": (hyper("α_min: ▲0.01"), "α_min must not exceed α_max, got 0.01 > 0"),
    "share above one": (
        hyper("α_min: ▲{fraction_of: α_max, uniform: [0, 1.5]}"), "α_min must not exceed α_max"
    ),
    "long warm-up": (
        "budget: {tokens: 100_000}\nhyperparameters:\n  B: {choice: [8, 32]}\n  T_warmup: ▲100",
        "T_warmup must not exceed T_total, got 100 > 49 with B = 32; change",
    ),
    "long warm-up, long context": (
        "budget: {tokens: 100_000}\nmodel: {context_length: {choice: [32, 256]}}\n"
        "hyperparameters: {T_warmup: ▲100}",
        "T_warmup must not exceed T_total, got 100 > 25 with context_length = 256",
    ),
    "warm-up and cycle": (
        hyper("T_cycle: {fraction_of: T_total, value: 0.1}\nT_warmup: ▲{fraction_of: T_total, "
              "uniform: [0, 0.2]}"),
        "T_warmup must not exceed T_cycle",
    ),
    "cycle of nothing": (hyper("T_cycle: ▲{fraction_of: T_total, value: 0}"), "T_cycle must be at"),
    "share out of range": (
        hyper("p_drop: ▲{fraction_of: λ, value: 2}\nλ: {uniform: [0.1, 1]}"),
        "p_drop must be below 1, got 2",
    ),
    "conflict under a condition": (
        hyper("optimizer: {choice: [adamw, sgd]}\nα_max: 0.01\n"
              "α_min: ▲{value: 0.1, when: {optimizer: sgd}}"),
        "α_min must not exceed α_max, got 0.1 > 0.01",
    ),
    "too many corners": (
        hyper("".join(
            f"{name}: {{fraction_of: τ, uniform: [0.01, 0.02]}}\n"
            for name in ("λ", "p_drop", "ε_ls", "β1", "β2", "ε", "α_max", "α_min", "T_warmup",
                         "T_cycle")
        ) + "τ: {uniform: [1, 2]}\nB: {choice: [8, 16]}\nschedule: {choice: [cosine, constant]}"),
        "can be combined in more than 4096 ways, which cannot all be checked",
    ),
    # lists of alternatives
    "alternative without when": (
        hyper("α_max: [{log: [1e-4, 1e-2], when: {optimizer: lion}}, ▲{log: [1e-3, 1e-1]}]"),
        "α_max: alternative 2 of the list has no when; add one, for instance",
    ),
    "alternatives that both hold": (
        hyper("optimizer: {choice: [sgd, lars, lion]}\nα_max:\n"
              "  - {log: [1e-4, 1e-2], when: {optimizer: [sgd, lion]}}\n"
              "  - {log: [1, 30], when: ▲{optimizer: [lars, sgd]}}"),
        "α_max: alternatives 1 and 2 both apply with optimizer sgd; change one when so that it exc",
    ),
    "alternatives by two names": (
        hyper("optimizer: {choice: [sgd, lars]}\nschedule: {choice: [cosine, linear]}\nα_max:\n"
              "  - {log: [1e-4, 1e-2], when: {optimizer: lars}}\n"
              "  - {log: [1, 30], when: ▲{schedule: linear}}"),
        "α_max: alternatives 1 and 2 both apply with schedule linear; change one when",
    ),
    "alternative that never holds": (
        hyper("α_max:\n  - {log: [1e-4, 1e-2], when: {optimizer: adamw}}\n"
              "  - {log: [1, 30], when: ▲{optimizer: lars}}"),
        "when: optimizer is never lars; it is adamw",
    ),
    "alternative with no effect": (
        hyper("optimizer: {choice: [sgd, momentum]}\nγ:\n"
              "  - {uniform: [0, 0.5], when: {optimizer: momentum}}\n"
              "  - ▲{uniform: [0, 0.9], when: {optimizer: sgd}}"),
        "γ has no effect with optimizer sgd",
    ),
    "mistake in an alternative": (
        hyper("α_max: [{log: [▲0, 1], when: {optimizer: lars}}]"),
        "α_max: the low end must be above 0 on a log scale, got 0",
    ),
    "alternatives of the budget": (
        "hyperparameters: {T_total: ▲[{value: 9, when: {optimizer: lars}}]}",
        "T_total is the budget, so it cannot be a list of alternatives; give one value or",
    ),
    "list of a mapping and a value": (
        hyper("α_max: [{log: [1e-4, 1e-2], when: {optimizer: lion}}, ▲0.1]"),
        "α_max: each alternative of a list needs a mapping with when, for instance {value: 0.1, "
        "when: {optimizer: momentum}}, got 0.1",
    ),
    "conflict in an alternative": (
        hyper("optimizer: {choice: [lion, lars]}\nα_min: ▲1e-3\nα_max:\n"
              "  - {log: [1e-4, 1e-2], when: {optimizer: lion}}\n"
              "  - {log: [1, 30], when: {optimizer: lars}}"),
        "α_min must not exceed α_max, got 0.001 > 0.0001",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", MISTAKES)
def test_space_file_reports_mistake(tmp_path: Path, case: str) -> None:
    marked, message = MISTAKES[case]
    if case == "too many corners":  # the whole section is meant
        marked = marked.replace("hyperparameters:\n  ", "hyperparameters:\n  ▲")
    if case in {"no budget", "steps and epochs"}:  # without a budget section, the top is meant
        assert marked.startswith("▲")
    (tmp_path / "small.txt").write_text("twenty bytes of text", encoding="utf-8")
    text, places = split_marks(marked)
    started = time.process_time()
    found = mistakes_of(tmp_path / "space.yaml", text)
    assert time.process_time() - started < 1
    assert [(m.line, m.column) for m in found] == places, found
    assert message in found[0].message


def test_space_file_reports_all_mistakes_together(tmp_path: Path) -> None:
    marked = """
▲nam: study
tokenizer: {vocab_size: ▲100}
model: {▲d_modl: 64, n_layers: ▲0}
hyperparameters:
  α_max: {log: [▲0, 1]}
  ▲B_: 8
  β1: ▲2
  λ: {▲normal: [0, 1], when: {optimizer: sgd}}
budget: {tokens: ▲many, ▲report: 1}
search: {trials: ▲0, sampler: ▲tp}
"""
    text, places = split_marks(marked)
    found = mistakes_of(tmp_path / "space.yaml", text)
    assert [(m.line, m.column) for m in found] == places


def test_space_file_checks_right_sections_next_to_wrong_ones(tmp_path: Path) -> None:
    marked = """
tokenizer: {vocab_size: ▲100}
hyperparameters: {B: {choice: [8, 12]}, T_total: 100}
engine: {micro_batch: ▲8}
budget: ▲{tokens: 5}
data: ▲{files: missing.txt}
search: {trials: ▲x}
"""
    text, places = split_marks(marked)
    found = mistakes_of(tmp_path / "space.yaml", text)
    assert [(m.line, m.column) for m in found] == places


@pytest.mark.parametrize(
    ("section", "problem"),
    [
        ("tokenizer: {file: ", "is a pipe or a device; give a file"),
        ("data: {files: ", "is not a regular file; copy its contents to one"),
    ],
)
def test_pipes_are_no_data(tmp_path: Path, section: str, problem: str) -> None:
    """Reading them would not end."""
    os.mkfifo(tmp_path / "pipe.txt")
    (mistake,) = mistakes_of(tmp_path / "space.yaml", f"{BUDGET}{section}pipe.txt}}")
    assert f"{tmp_path}/pipe.txt {problem}" in mistake.message
    assert mistake.line == 2


def test_error_of_the_data_is_located_in_the_file(tmp_path: Path) -> None:
    path = tmp_path / "space.yaml"
    path.write_text(f"{BUDGET}data:\n  hub: nobody/nothing\n")

    def at(message: str, *overrides: str) -> str:
        told = [Override.parse(each) for each in overrides]
        return str(located(CorpusError(message), str(path), told))

    assert at("data.hub: no such set") == f"{path}:3:8 data.hub: no such set"
    assert at("data: it is empty") == f"{path}:3:3 data: it is empty"
    assert at("data.hub: no", "data.hub=other/one") == "--set data.hub: no"
    assert at("the corpus is damaged") == "the corpus is damaged"


@pytest.mark.parametrize(
    "text",
    [
        BUDGET,
        BUDGET + "model:\nhyperparameters:\ndata:\nsearch:\nname:\n",
        "budget: {tokens: 1e5}",
        hyper("τ: off"),
        hyper("τ_value: {choice: [off, 0.1]}"),
        hyper("optimizer: momentum\nd: {fraction_of: γ, choice: [0, 1]}"),
        hyper("schedule: {choice: [cosine, wsd]}\n"
              "cooldown_shape: {choice: [linear, sqrt], when: {schedule: wsd}}"),
        hyper("T_prune_start: {fraction_of: T_total, value: 0.9}"),
        hyper("τ: {choice: [off, 1, 2]}"),
        hyper("B: 16.0"),
        hyper("B: {choice: &b [8, 16]}\nT_warmup: {choice: *b}"),
        hyper("optimizer: {choice: [sgd, momentum]}\nγ: {value: 0, when: {optimizer: momentum}}"),
        hyper("schedule: constant\nα: {log: [1e-4, 1e-2]}\nβ₁: 0.8\nmax_grad_norm: 2"),
        hyper("α_max: 0.1\nα_min: 0.1"),
        hyper("α_max: {log: [1e-3, 1e-1]}\nα_min: {log: [1e-5, 1e-3]}"),
        hyper("schedule: constant\nα: 0.1\noptimizer: sgd"),
        "hyperparameters: {N_epoch: {int: [1, 3]}}",
        "hyperparameters: {T_total: {int_log: [10, 1000]}}",
        BUDGET + "model: {d_model: {choice: [64, 96]}, "
        "n_heads: {value: 3, when: {d_model: 96}}}",
    ],
)  # fmt: skip
def test_space_file_accepts(tmp_path: Path, text: str) -> None:
    """Files that look like mistakes and are none."""
    path = tmp_path / "my space.yaml"
    path.write_text(text, encoding="utf-8")
    assert load_space(path).name == "my-space"


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.name)
def test_shipped_space_is_valid(path: Path, tmp_path: Path) -> None:
    path = shipped(path.stem, tmp_path)
    started = time.thread_time()
    space = load_space(path)
    assert time.thread_time() - started < 0.5
    assert space.name == path.stem
    assert space.searched
    assert conflicts(space, 1_000_000) == []


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.name)
def test_shipped_space_explains_each_line(path: Path) -> None:
    """A comment stands beside each value, or above the line."""
    lines = path.read_text(encoding="utf-8").splitlines()
    assert lines[0].startswith("# ")
    for before, line in itertools.pairwise(lines):
        holds_value = line.strip() and not line.strip().startswith("#") and line[-1] != ":"
        assert not holds_value or " #" in line or before.strip().startswith("#"), line


def test_space_file_means_paths_from_where_it_lies(tmp_path: Path) -> None:
    (tmp_path / "text").mkdir()
    (tmp_path / "text" / "a.txt").write_text("some text", encoding="utf-8")
    (tmp_path / "space.yaml").write_text(
        BUDGET + "data: {files: text/a.txt}\nmodel: {context_length: 4}"
    )
    assert load_space(tmp_path / "space.yaml").data.files == (str(tmp_path / "text" / "a.txt"),)


def test_space_file_expands_the_home_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In every path; a name that only begins with ~ is a name."""
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("a.txt", "b.safetensors", "~no-such-user.txt"):
        (tmp_path / name).write_text("some text " * 20, encoding="utf-8")
    vocab = {byte: bytes([byte]) for byte in range(256)}
    Tokenizer(vocab, [], ["<|endoftext|>"]).save(tmp_path, "huggingface")
    path = tmp_path / "space.yaml"
    path.write_text(
        BUDGET
        + "data: {files: [~/a.txt, ~no-such-user.txt]}\ntokenizer: {file: ~/tokenizer.json}\n"
        "init_from: {checkpoint: ~/b.safetensors}"
    )
    space = load_space(path)
    assert space.data.files == (str(tmp_path / "a.txt"), str(tmp_path / "~no-such-user.txt"))
    assert space.tokenizer.file == str(tmp_path / "tokenizer.json")
    assert space.init_from is not None
    assert space.init_from.checkpoint == str(tmp_path / "b.safetensors")
    (tmp_path / "set").mkdir()
    path.write_text(BUDGET + "data: {hub: ~/set}")
    assert load_space(path).data.hub == str(tmp_path / "set")


def test_space_file_means_a_checkpoint_and_a_tokenizer_from_where_it_lies(tmp_path: Path) -> None:
    vocab = {byte: bytes([byte]) for byte in range(256)}
    Tokenizer(vocab, [], ["<|endoftext|>"]).save(tmp_path, "huggingface")
    (tmp_path / "a.safetensors").touch()
    (tmp_path / "space.yaml").write_text(
        BUDGET + "init_from: {checkpoint: a.safetensors}\ntokenizer: {file: tokenizer.json}"
    )
    space = load_space(tmp_path / "space.yaml")
    assert space.tokenizer.file == str(tmp_path / "tokenizer.json")
    assert space.init_from is not None
    assert space.init_from.checkpoint == str(tmp_path / "a.safetensors")


def test_space_file_means_a_data_set_from_where_it_lies(tmp_path: Path) -> None:
    """If it is a folder there; a name of the hub stays one."""
    (tmp_path / "set").mkdir()
    path = tmp_path / "space.yaml"
    for hub, expected in (("./set", str(tmp_path / "set")), ("owner/set", "owner/set")):
        path.write_text(BUDGET + f"data: {{hub: {hub}, split: test}}")
        assert load_space(path).data.hub == expected


def test_space_file_with_data_of_unknown_size_is_valid(tmp_path: Path) -> None:
    """A context that is longer than the file on the disk is no mistake."""
    (tmp_path / "a.txt.gz").write_bytes(b"")
    path = tmp_path / "space.yaml"
    path.write_text(BUDGET + "data: {files: a.txt.gz}")
    assert load_space(path).data.files == (str(tmp_path / "a.txt.gz"),)


def test_off_and_whole_floats_become_numbers(tmp_path: Path) -> None:
    path = tmp_path / "space.yaml"
    path.write_text(hyper("τ: {choice: [off, 1]}\nB: {choice: [8.0, 1.6e1]}"), encoding="utf-8")
    space = load_space(path)
    assert space.hyperparameters["grad_clip"].describe() == "one of 0, 1"
    assert space.batch_sizes == [8, 16]
    assert all(type(b) is int for b in space.batch_sizes)


@pytest.mark.slow
def test_reading_a_space_starts_nothing() -> None:
    code = """
import sys
from tuner.space_file.load import load_space
load_space(sys.argv[1])
print([m for m in ("torch", "ray", "mlflow", "optuna") if m in sys.modules])
"""
    path = next(path for path in SHIPPED if path.name == "lm.yaml")
    result = subprocess.run(
        [sys.executable, "-c", code, path], capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "[]"


def test_conflicts_with_the_corpus_itself(tmp_path: Path) -> None:
    path = tmp_path / "space.yaml"
    path.write_text("hyperparameters: {N_epoch: 2, T_warmup: 100, B: 16}", encoding="utf-8")
    space = load_space(path)
    assert conflicts(space, 10_000_000) == []
    ((name, message),) = conflicts(space, 10_000)
    assert name == "warmup_steps"
    assert message.startswith("T_warmup must not exceed T_total, got 100 > 19")


def check_only_space_errors(path: Path, text: str) -> None:
    path.write_bytes(text.encode("utf-8", errors="surrogatepass"))
    try:
        assert isinstance(load_space(path), SearchSpace)
    except SpaceError as error:
        lines = str(error).split("\n")
        assert len(lines) == len(error.mistakes)
        assert all(line.startswith(f"{path}:") for line in lines)


WORDS = st.sampled_from(
    """α_max α_min T_warmup T_total N_epoch B λ γ optimizer schedule d_model n_heads context_length
    fraction_of when log uniform int int_log choice grid value budget tokens model engine
    micro_batch hyperparameters search sampler scheduler pbt bohb nsga2 try_first max_seconds 90s
    prior centre confidence high objective metric mode bleu confirm top trials adamw momentum cosine constant sgd off true null
    0 1 -1 16 1e-4 0.5 1e300 .inf [] {} [1,2] [0.1,0.2] [8,16] ~ '' : , { } [ ] &a *a !!int
    """.split()
)


@pytest.mark.slow
@settings(max_examples=1000)
@given(st.randoms(use_true_random=False), st.lists(WORDS, min_size=1, max_size=4))
def test_mutated_space_raises_only_space_errors(
    tmp_path_factory: pytest.TempPathFactory, rng: random.Random, words: list[str]
) -> None:
    """Words of the shipped file replaced by others."""
    pieces: list[Any] = [
        p for line in LM.splitlines() for p in (*line.split("#")[0].split(" "), "\n")
    ]
    for word in words:
        pieces[rng.randrange(len(pieces))] = word
    text = " ".join(pieces).replace("\n ", "\n")
    check_only_space_errors(tmp_path_factory.getbasetemp() / "mutated.yaml", text)


ENTRY = st.recursive(
    WORDS,
    lambda inner: (
        st.lists(inner, max_size=3).map(lambda v: f"[{', '.join(v)}]")
        | st.dictionaries(WORDS, inner, max_size=3).map(
            lambda d: "{" + ", ".join(f"{k}: {v}" for k, v in d.items()) + "}"
        )
    ),
    max_leaves=6,
)


@pytest.mark.slow
@settings(max_examples=300)
@given(st.dictionaries(WORDS, ENTRY, max_size=4), st.dictionaries(WORDS, ENTRY, max_size=3))
def test_random_space_raises_only_space_errors(
    tmp_path_factory: pytest.TempPathFactory, rows: dict[str, str], sizes: dict[str, str]
) -> None:
    text = "hyperparameters:\n" + "".join(f"  {k}: {v}\n" for k, v in rows.items())
    text += "model:\n" + "".join(f"  {k}: {v}\n" for k, v in sizes.items()) + BUDGET
    check_only_space_errors(tmp_path_factory.getbasetemp() / "random_space.yaml", text)


@pytest.mark.slow
@settings(max_examples=100)
@given(st.text(max_size=100))
def test_random_text_raises_only_space_errors(
    tmp_path_factory: pytest.TempPathFactory, text: str
) -> None:
    check_only_space_errors(tmp_path_factory.getbasetemp() / "random_text.yaml", text)


@pytest.mark.slow
@settings(max_examples=150)
@given(ENTRY, ENTRY, ENTRY)
def test_random_search_raises_only_space_errors(
    tmp_path_factory: pytest.TempPathFactory, search: str, objective: str, prior: str
) -> None:
    text = f"search: {search}\nobjective: {objective}\nconfirm: {prior}\n" + hyper(
        f"α_max: {{log: [1e-4, 1e-1], prior: {prior}}}\nB: {{choice: [8, 16]}}"
    )
    check_only_space_errors(tmp_path_factory.getbasetemp() / "random_search.yaml", text)


@pytest.mark.slow
@settings(max_examples=150)
@given(
    st.lists(st.dictionaries(WORDS, ENTRY, max_size=3), max_size=3),
    st.dictionaries(WORDS, ENTRY, max_size=3),
)
def test_random_points_raise_only_space_errors(
    tmp_path_factory: pytest.TempPathFactory, points: list[dict[str, str]], prior: dict[str, str]
) -> None:
    written = ", ".join("{" + ", ".join(f"{k}: {v}" for k, v in p.items()) + "}" for p in points)
    prior_text = "{" + ", ".join(f"{k}: {v}" for k, v in prior.items()) + "}"
    text = f"search: {{try_first: [{written}]}}\nobjective: [{prior_text}]\n" + hyper(
        f"α_max: {{log: [1e-4, 1e-1], prior: {prior_text}}}\nB: {{choice: [8, 16]}}"
    )
    check_only_space_errors(tmp_path_factory.getbasetemp() / "random_points.yaml", text)


@pytest.mark.parametrize(("text", "problem"), [("", "are empty"), ("a", "hold one byte, too few")])
def test_files_that_are_too_short_are_named(tmp_path: Path, text: str, problem: str) -> None:
    (tmp_path / "a.txt").write_text(text)
    (tmp_path / "lm.yaml").write_text(f"{BUDGET}data: {{files: a.txt}}\n")
    with pytest.raises(SpaceError, match=f"the files {problem}.*; add text to them"):
        load_space(tmp_path / "lm.yaml")
