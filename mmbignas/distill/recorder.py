"""Recording what named modules put out."""
from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from mmbignas.distill.regions import SECOND_STAGE, RegionCall, RegionRecorder
from mmbignas.errors import ConfigError
from mmbignas.utils.models import tensors_in, unwrapped

Outputs = dict[str, list[Tensor]]
ModuleOutputs = Sequence[Sequence[Tensor]]


class OutputRecorder:
    """Keeps the outputs of modules between :meth:`start` and :meth:`stop`.

    A module that is called several times (a head's convolution on all pyramid levels) or puts out several tensors
    leaves them in the order of the calls. Of a two-stage detector it also knows the regions, see :meth:`on_regions`.

    Args:
        model: a model, or a wrapper such as DDP around one.
        places: path of a module in the model -> where it stands in the config, for messages.

    Raises:
        ConfigError: for a name that is not in the model, with the nearest names that are.
    """

    def __init__(self, model: nn.Module, places: Mapping[str, str]) -> None:
        model = unwrapped(model)
        modules = dict(model.named_modules())
        self._outputs: Outputs | None = None
        for name, key in places.items():
            if name not in modules:
                raise ConfigError(f'{key}: the model has no module {name!r}; {_nearest(name, modules)}')
        self._regions = RegionRecorder(model)
        self._second_stage = [name for name in places if name.startswith(f'{SECOND_STAGE}.')]
        self._handles = [modules[name].register_forward_hook(self._hook(name)) for name in places]

    def _hook(self, name: str) -> Any:
        def record(module: nn.Module, inputs: Any, output: Any) -> None:
            if self._outputs is not None:
                # Copied: an activation that works in place may come next.
                self._outputs.setdefault(name, []).extend(tensor.clone() for tensor in tensors_in(output))
        return record

    def start(self) -> None:
        """Begin to record, forgetting what was recorded before."""
        self._outputs = {}
        self._regions.start()

    def stop(self) -> Outputs:
        """End recording and return what was recorded: module name -> its output tensors."""
        outputs, self._outputs = self._outputs or {}, None
        self._regions.stop()
        return outputs

    @property
    def regions(self) -> list[RegionCall]:
        """Where a detector's second stage looked while this was recorded."""
        return self._regions.calls

    def on_regions(self, outputs: Outputs, regions: Sequence[RegionCall]) -> Outputs:
        """What was recorded, with the outputs of modules of the second stage on other regions in place of its own.

        Args:
            outputs: from :meth:`stop`.
            regions: :attr:`regions` of a teacher's recorder.
        """
        if not self._second_stage:
            return outputs
        self._outputs = {}
        self._regions.compute_on(regions)
        found, self._outputs = self._outputs, None
        return {**{name: own for name, own in outputs.items() if name not in self._second_stage}, **found}

    def remove(self) -> None:
        """Take the recorder off the model."""
        for handle in self._handles:
            handle.remove()


def _nearest(name: str, modules: dict[str, nn.Module]) -> str:
    """The deepest part of a wrong path that exists, and what stands below it."""
    path = name
    while path and path not in modules:
        path = path.rpartition('.')[0]
    children = [child for child, _ in modules[path].named_children()]
    return f'{path or "the model"} has: {", ".join(children) or "no children"}'


def pairs(student: ModuleOutputs, teacher: ModuleOutputs) -> Iterator[tuple[Tensor, Tensor]]:
    """The tensors to compare, of all modules. Raises ValueError where one has more than the other."""
    for ours, theirs in zip(student, teacher, strict=True):
        yield from zip(ours, theirs, strict=True)


def as_float(tensor: Tensor) -> Tensor:
    """The tensor in float32, or in float64 where it is."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


def data_samples_of(batch: Any) -> Any:
    """The data samples of a preprocessed batch, as MMEngine gives it to models.

    Args:
        batch: a dict with ``data_samples``, or a sequence of inputs and data samples.

    Returns:
        ``None`` where there are none.
    """
    if isinstance(batch, Mapping):
        return batch.get('data_samples')
    return batch[1] if isinstance(batch, Sequence) and len(batch) > 1 else None
