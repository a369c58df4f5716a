"""Operations that MMCV has compiled, which torch's dispatcher does not see."""
from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from mmbignas.elastic.axes import Atom, Fix, Prod, freeze, unify
from mmbignas.elastic.tracer import Axes, Tracer

Extension = Callable[[Tracer, list[Any], Tensor], Axes]


def _roi(tracer: Tracer, args: list[Any], output: Tensor) -> Axes:
    """Channels of a feature, in regions."""
    axes = tracer.axes(args[0])
    return [Fix(output.shape[0]), axes[1], *(Fix(size) for size in output.shape[2:])]


def _deformable(weight: int, groups: int) -> Extension:

    def rule(tracer: Tracer, args: list[Any], output: Tensor) -> Axes:
        """A convolution; what says where it looks is counted off by position."""
        reason = f'a deformable convolution in {tracer.path}'
        x, own = tracer.axes(args[0]), tracer.axes(args[weight])
        for place in range(1, weight):
            for node in tracer.axes(args[place]) if isinstance(args[place], Tensor) else ():
                freeze(node, reason)
        number = args[groups]
        if number == 1:
            unify(x[1], own[1], reason)
        else:
            group = Atom(number)
            unify(x[1], Prod((group, Fix(x[1].size // number))), reason)
            unify(own[0], Prod((group, Fix(own[0].size // number))), reason)
            freeze(own[1], reason)
        bias = args[weight + 1] if weight == 3 else None
        if isinstance(bias, Tensor):
            unify(tracer.axes(bias)[0], own[0], reason)
        tracer.produced.append((own[0], tracer.path))
        return [x[0], own[0], *(Fix(size) for size in output.shape[2:])]

    return rule


# Class of mmcv.ops -> its rule: the arguments of its forward, without the context.
RULES: dict[str, Extension] = {
    'roi_align.RoIAlignFunction': _roi,
    'roi_pool.RoIPoolFunction': _roi,
    'deform_conv.DeformConv2dFunction': _deformable(2, 6),
    'modulated_deform_conv.ModulatedDeformConv2dFunction': _deformable(3, 8),
}


@contextmanager
def traced_extensions(tracer: Tracer) -> Iterator[None]:
    """Within the context, a tracer learns the axes of what MMCV's operations return."""
    changed: list[tuple[Any, Any]] = []

    def wrap(original: Any, rule: Extension) -> Any:
        def forward(ctx: Any, *args: Any, **kwargs: Any) -> Any:
            tracer.paused = True
            try:
                output = original(ctx, *args, **kwargs)
            finally:
                tracer.paused = False
            tracer.give(output, rule(tracer, list(args), output))
            return output
        return staticmethod(forward)

    for name, rule in RULES.items():
        module, _, cls = name.rpartition('.')
        try:
            function = getattr(importlib.import_module(f'mmcv.ops.{module}'), cls)
        except (ImportError, AttributeError):  # MMCV without its compiled part
            continue
        changed.append((function, vars(function)['forward']))
        function.forward = wrap(function.forward, rule)
    try:
        yield
    finally:
        for function, forward in changed:
            function.forward = forward


class _Double(TorchFunctionMode):
    """Wherever single precision is asked for, there is double."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is Tensor.float:
            return args[0].double()
        args = [torch.float64 if arg is torch.float32 else arg for arg in args]
        kwargs = {name: torch.float64 if arg is torch.float32 else arg for name, arg in (kwargs or {}).items()}
        return func(*args, **kwargs)


@contextmanager
def double_precision() -> Iterator[None]:
    """Within the context, everything is computed in double precision, but for MMCV's NMS, which knows single only."""
    default = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        with _Double(), _single_nms():
            yield
    finally:
        torch.set_default_dtype(default)


@contextmanager
def _single_nms() -> Iterator[None]:
    try:
        from mmcv.ops.nms import NMSop
    except ImportError:
        yield
        return
    original, plain = vars(NMSop)['forward'], NMSop.forward

    def forward(ctx: Any, bboxes: Tensor, scores: Tensor, *args: Any) -> Any:
        with torch._C.DisableTorchFunction():
            return plain(ctx, bboxes.float(), scores.float(), *args)

    NMSop.forward = staticmethod(forward)
    try:
        yield
    finally:
        NMSop.forward = original
