"""Part `kernel` of gpu.py: is the Triton kernel of AdamW's update right, and how fast is it?

The update moves each number of θ, m, v and g through memory, so that its bound is the bandwidth of
a large copy on the same device. Without a GPU the kernel is interpreted.

K = slots in a stack, P = padded parameters of one model.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor

from model.device.memory import give_back
from model.optimizers.registry import coefficients
from model.optimizers.update_rule import stack_rows, update
from model.spec.architecture import Architecture
from model.spec.hyperparameters import Hyperparameters
from model.stack.matrices import Matrices
from parts import synthetic
from parts.fusion.jobs import SEQUENCES, SIZES, TINY
from parts.gpu.measurement import Measurement, Numbers, Verdicts, Where, of_kind

STEP = 7  # number of the update, in Adam's corrections
RATE = 1e-3  # learning rate
LEAST_BANDWIDTH = 0.7  # of a copy
MOST_ERROR = 1e-5  # of θ against float64, relative to the step
TIMED = {"1M": 64, "10M": 16, "50M": 4}  # size → K
CHECKED = 4  # K of the comparison with float64
_COPY_BYTES = 2**30
_SPANS, _CALLS = 9, 10  # timed spans, and calls in each


def measurements(where: Where) -> dict[str, Measurement]:
    """Return the measurements of this part."""
    found = {"right": Measurement(right, 30), "copy": Measurement(copy, 15)}
    for dtype in ("bfloat16", "float32"):
        for size in ["tiny"] if where.quick else TIMED:
            found[f"time, {size}, {dtype}"] = Measurement(partial(timed, size, dtype), 20)
    return found


class Updates:
    """Random state of a stack, and its update by the kernel, the rule and torch.

    Args:
        architecture: architecture of the slots.
        slots: K.
        where: device.
        compute: dtype of the copy of θ.
    """

    def __init__(
        self, architecture: Architecture, slots: int, where: Where, compute: torch.dtype
    ) -> None:
        from model.optimizers.adamw_triton import Kernel

        self.device = torch.device(where.device)
        self.matrices = Matrices(architecture, slots, self.device, compute)
        generator = torch.Generator(self.device).manual_seed(0)
        x = self.matrices
        for matrix, scale in ((x.theta, 0.02), (x.m, 1e-3), (x.v, 1e-3), (x.grad, 1e-3)):
            matrix.normal_(generator=generator).mul_(scale)
        x.v.square_()
        x.refresh()
        self.hyperparameters = [self._hyperparameters(architecture, k) for k in range(slots)]
        rows = [coefficients(STEP, RATE, h) for h in self.hyperparameters]
        self.rows = torch.tensor(rows, dtype=torch.float64)  # (K, C)
        self._inputs = self.rows.float().to(self.device)
        self.scale = torch.linspace(0.5, 1.0, slots, device=self.device)
        self.limit = torch.full((slots,), 2e-3, device=self.device)
        self._all = torch.ones(slots, dtype=torch.bool, device=self.device)
        self._kernel = Kernel(x.layout, x.theta.shape[1], self.device)

    @staticmethod
    def _hyperparameters(a: Architecture, k: int) -> Hyperparameters:
        rows = {"batch_size": 4, "total_steps": 10, "weight_decay": 0.1 + 0.01 * k}
        more = {"max_learning_rate": RATE, "beta1": 0.9 - 0.01 * (k % 8), "beta2": 0.95}
        return synthetic.trial(a, 0, {**rows, **more}, (SEQUENCES, 1)).hyperparameters

    def by_kernel(self) -> None:
        """Update in place by the kernel."""
        x = self.matrices
        self._kernel.apply_(
            x.theta, x.m, x.v, x.grad, x.copy,
            self._inputs, self.scale, self.limit, self._all, self._all,
        )  # fmt: skip

    def by_rule(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return θ, m and v after the update operation by operation."""
        x = self.matrices
        limit = self.limit.unsqueeze(1)
        grad = (x.grad * self.scale.unsqueeze(1)).clamp_(-limit, limit)
        c = stack_rows(self.rows.numpy(), self.device)
        return update(x.theta, x.m, x.v, grad, c, x.layout)

    def by_formula(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return θ, m and v in float64, as Loshchilov & Hutter 2019 write AdamW (algorithm 2)."""
        x = self.matrices
        theta, m, v, g = (each.double() for each in (x.theta, x.m, x.v, x.grad))
        g = g * self.scale.double().unsqueeze(1)
        bound = self.limit.double().unsqueeze(1)
        g = torch.maximum(torch.minimum(g, bound), -bound)

        def column(name: str) -> Tensor:
            values = [float(getattr(h, name)) for h in self.hyperparameters]
            return torch.tensor(values, dtype=torch.float64, device=self.device).unsqueeze(1)

        beta1, beta2, eps, decay = map(column, ("beta1", "beta2", "eps", "weight_decay"))
        m = beta1 * m + (1 - beta1) * g
        v = beta2 * v + (1 - beta2) * g * g
        step = (m / (1 - beta1**STEP)) / ((v / (1 - beta2**STEP)).sqrt() + eps)
        for part in x.layout.matrices:
            step[:, part] += decay * theta[:, part]
        return theta - RATE * step, m, v


def _architecture(size: str) -> Architecture:
    return TINY.architecture if size == "tiny" else SIZES["cuda"][size].architecture


def right(where: Where) -> Numbers:
    """Compare the kernel with the rule, bit for bit, and with float64 and torch's AdamW."""
    architecture = _architecture("tiny" if where.quick else "1M")
    updates = Updates(architecture, CHECKED, where, torch.bfloat16)
    x = updates.matrices
    before = x.theta.clone()
    rule, exact = updates.by_rule(), updates.by_formula()
    of_torch = _torchs_error(updates)
    updates.by_kernel()
    own = (x.theta, x.m, x.v)
    change = (exact[0] - before.double()).norm()
    return {
        "differing_from_the_rule": sum(int((a != b).sum()) for a, b in zip(own, rule, strict=True)),
        "gradients_left": int((x.grad != 0).sum()),
        "copy_differs": int((x.copy != x.theta.to(x.copy.dtype)).sum()),
        "error_of_theta": float((x.theta.double() - exact[0]).norm() / change),
        "error_of_m": float((x.m.double() - exact[1]).norm() / exact[1].norm()),
        "error_of_v": float((x.v.double() - exact[2]).norm() / exact[2].norm()),
        "error_of_torch": of_torch,
        "numbers": x.theta.numel(),
    }


def _torchs_error(updates: Updates) -> float:
    """Return the error of torch's fused AdamW on slot 0, relative to the step."""
    x, h = updates.matrices, updates.hyperparameters[0]
    theta, m, v = x.theta[0].clone(), x.m[0].clone(), x.v[0].clone()
    limit = updates.limit[0]
    grad = (x.grad[0] * updates.scale[0]).clamp_(-limit, limit)
    params = [torch.nn.Parameter(theta[part].clone()) for part in x.layout.matrices]
    optimizer = torch.optim.AdamW(
        params, RATE, (h.beta1, h.beta2), h.eps, h.weight_decay, fused=True
    )
    for param, part in zip(params, x.layout.matrices, strict=True):
        param.grad = grad[part].clone()
        step = torch.tensor(float(STEP - 1), device=updates.device)
        moments = {"exp_avg": m[part].clone(), "exp_avg_sq": v[part].clone()}
        optimizer.state[param] = {"step": step, **moments}
    optimizer.step()
    exact, before = updates.by_formula()[0][0], x.theta[0].double()
    parts = list(zip(params, x.layout.matrices, strict=True))
    error = sum((p.detach().double() - exact[part]).square().sum() for p, part in parts)
    change = sum((exact[part] - before[part]).square().sum() for _, part in parts)
    return float((error / change) ** 0.5)  # type: ignore[operator]


def seconds_of(do: Callable[[], Any], where: Where) -> float:
    """Return the median time of a call, in spans of several calls after a warm-up."""
    spans, calls = (1, 1) if where.quick else (_SPANS, _CALLS)
    times = []
    for _ in range(spans + (0 if where.quick else 2)):
        if where.on_gpu:
            begun, ended = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            begun.record()
            for _ in range(calls):
                do()
            ended.record()
            torch.cuda.synchronize()
            times.append(begun.elapsed_time(ended) / 1e3 / calls)
        else:
            start = time.perf_counter()
            do()
            times.append(time.perf_counter() - start)
    return statistics.median(times[-spans:])


def copy(where: Where) -> Numbers:
    """Measure the bandwidth of a large copy on the device, counting bytes read and written."""
    num_bytes = 2**20 if where.quick else _COPY_BYTES
    source = torch.rand(num_bytes // 4, device=where.device)
    target = torch.empty_like(source)
    seconds = seconds_of(lambda: target.copy_(source), where)
    return {"bytes": 2 * num_bytes, "bytes_per_second": 2 * num_bytes / seconds}


def timed(size: str, dtype: str, where: Where) -> Numbers:
    """Measure the kernel's time for a stack, torch's AdamW on as many numbers, and the rule's."""
    slots = 2 if where.quick else TIMED[size]
    compute = torch.bfloat16 if dtype == "bfloat16" else torch.float32
    updates = Updates(_architecture(size), slots, where, compute)
    x = updates.matrices
    count = x.theta.numel()
    # reads θ, m, v and g, writes them (g as zeros), and writes the copy in bfloat16
    num_bytes = count * (8 * 4 + (2 if x.copy is not x.theta else 0))
    found = {
        "slots": slots,
        "numbers": count,
        "bytes": num_bytes,
        "kernel": seconds_of(updates.by_kernel, where),
    }
    x.grad.normal_().mul_(1e-3)
    found["rule"] = seconds_of(updates.by_rule, where)
    theta, grad = x.theta.clone(), x.grad.clone()
    del updates, x
    give_back(torch.device(where.device))
    for name, options in {"fused": {"fused": True}, "foreach": {"foreach": True}}.items():
        param = torch.nn.Parameter(theta.clone())
        param.grad = grad
        optimizer = torch.optim.AdamW([param], RATE, weight_decay=0.1, **options)
        found[f"torch, {name}"] = seconds_of(optimizer.step, where)
    # reads θ, m, v and g, writes θ, m and v; clearing g comes on top
    return {**found, "bytes_of_torch": count * 7 * 4}


# the result --------------------------------------------------------------------------------------


def _share(each: Numbers, bandwidth: float) -> float:
    return float(each["bytes"] / each["kernel"] / bandwidth)


def tables(numbers: Mapping[str, Numbers]) -> list[dict[str, Any]]:
    """Return the tables of this part."""
    found = []
    if "right" in numbers:
        each = numbers["right"]
        rows = [
            ["numbers of θ", each["numbers"]],
            ["numbers of θ, m, v unlike the rule's", each["differing_from_the_rule"]],
            ["gradients not cleared", each["gradients_left"]],
            ["numbers of the copy unlike θ's", each["copy_differs"]],
            *(
                [f"error of {what}", f"{each[key]:.1e}"]
                for what, key in (
                    ("θ, of the step", "error_of_theta"),
                    ("m", "error_of_m"),
                    ("v", "error_of_v"),
                    ("torch's fused AdamW, of the step", "error_of_torch"),
                )
            ),
        ]
        found.append({"title": "Against float64", "columns": ["", "kernel"], "rows": rows})
    timings = of_kind(numbers, "time")
    if timings:
        bandwidth = numbers.get("copy", {}).get("bytes_per_second")
        rows = [
            [
                name,
                each["slots"],
                each["bytes"] / 2**20,
                *(
                    1e3 * each[side]
                    for side in ("kernel", "rule", "torch, fused", "torch, foreach")
                ),
                f"{100 * _share(each, bandwidth):.0f} %" if bandwidth else None,
            ]
            for name, each in timings.items()
        ]
        columns = [
            "stack", "K", "MiB moved", "kernel, ms", "single operations, ms", "torch fused, ms",
            "torch foreach, ms", "kernel, of a copy's bandwidth",
        ]  # fmt: skip
        found.append({"title": "Time of an update", "columns": columns, "rows": rows})
    return found


def verdicts(numbers: Mapping[str, Numbers]) -> Verdicts:
    """Return the verdicts of this part."""
    found = Verdicts()
    checked, copied = numbers.get("right"), numbers.get("copy")
    wrong = None
    if checked:
        keys = ("differing_from_the_rule", "gradients_left", "copy_differs")
        wrong = sum(checked[key] for key in keys)
    found.add("numbers that the kernel computes unlike the single operations", wrong, most=0)
    error = checked["error_of_theta"] if checked else None
    found.add("error of θ against float64, relative to the step", error, most=MOST_ERROR)
    for dtype in ("bfloat16", "float32"):
        for size in TIMED:
            each = numbers.get(f"time, {size}, {dtype}")
            share = _share(each, copied["bytes_per_second"]) if each and copied else None
            what = f"{size}, {dtype}: bandwidth of the kernel, share of a copy's"
            found.add(what, share, least=LEAST_BANDWIDTH)
    return found


def notes(numbers: Mapping[str, Numbers]) -> list[str]:
    """Return notes on this part."""
    if "copy" not in numbers:
        return []
    each = numbers["copy"]
    size, speed = each["bytes"] / 2**21, each["bytes_per_second"] / 1e9
    return [
        f"A copy of {size:.3g} MiB on the device moves {speed:,.0f} GB/s, counting bytes read and "
        "written; so are the kernel's counted."
    ]
