"""The largest subnet as the teacher of the others of its iteration."""
from __future__ import annotations

from typing import Any

import torch

from mmbignas.distill.job import DistillJob
from mmbignas.distill.recorder import OutputRecorder, Outputs
from mmbignas.distill.regions import RegionCall
from mmbignas.space import ImageSize
from mmbignas.train.subnet_pass import SubnetPass
from mmbignas.train.trial_pass import undisturbed
from mmbignas.utils.models import unwrapped
from mmbignas.utils.rules import must_be


class InPlaceTeacher:
    """What the largest subnet put out in an iteration, detached, for the images that it has seen.

    Args:
        recorder: records the outputs of the named modules.
        same_pixels: whether a student at another image size is taught by what the largest subnet puts out at that size.
    """

    def __init__(self, recorder: OutputRecorder, same_pixels: bool) -> None:
        self.recorder, self.same_pixels = recorder, same_pixels
        self._iteration = -1
        self._own_size: ImageSize | None = None
        self._outputs: dict[ImageSize | None, Outputs] = {}
        self._regions: dict[ImageSize | None, list[RegionCall]] = {}

    def keep(self, subnet_pass: SubnetPass, outputs: Outputs) -> None:
        """Keep the outputs of the largest subnet's own pass."""
        self._iteration, self._own_size = subnet_pass.iteration, subnet_pass.image_size
        self._outputs = {subnet_pass.image_size: _detached(outputs)}
        self._regions = {subnet_pass.image_size: self.recorder.regions}

    def forget(self) -> None:
        """Let go of all outputs."""
        self._outputs, self._regions = {}, {}

    def prepare(self, runner: Any, subnet_pass: SubnetPass) -> None:
        """Let the largest subnet see what a student is about to see, unless it has.

        It computes in training mode, without gradients and without dropping anything, and leaves no trace in running
        statistics and random states. Afterwards the model computes as the student again.
        """
        if not self.same_pixels or not self._outputs or subnet_pass.image_size in self._outputs:
            return
        loop = runner.train_loop
        model: Any = unwrapped(runner.model)
        loop.supernet.apply(loop.rule.max)
        self.recorder.start()
        with undisturbed(model), torch.no_grad(), runner.optim_wrapper.optim_context(model):
            model._run_forward(loop.data, mode='loss')
        self._outputs[subnet_pass.image_size] = _detached(self.recorder.stop())
        self._regions[subnet_pass.image_size] = self.recorder.regions
        loop.supernet.apply(subnet_pass.subnet)

    def outputs(self, subnet_pass: SubnetPass) -> Outputs:
        """What a student learns from.

        Raises:
            RuntimeError: when there is nothing of its iteration, and so of its batch.
        """
        if self._iteration != subnet_pass.iteration:
            raise RuntimeError(f'the outputs of the largest subnet are those of iteration {self._iteration}, but '
                               f'{subnet_pass.name} is trained in iteration {subnet_pass.iteration}')
        return self._outputs.get(subnet_pass.image_size) or self._outputs[self._own_size]

    def regions(self, subnet_pass: SubnetPass) -> list[RegionCall]:
        """Where the second stage of a two-stage detector looked in what :meth:`outputs` returns."""
        size = subnet_pass.image_size
        return self._regions[size if size in self._regions else self._own_size]

    def check(self, subnet_pass: SubnetPass, job: DistillJob, outputs: Outputs) -> None:
        """Refuse student's outputs that depend on the image size, where the teacher's images were of another one.

        Raises:
            ConfigError: for a module with such outputs.
        """
        if subnet_pass.image_size in self._outputs:
            return
        for module in job.names:
            for ours, theirs in zip(outputs[module], self.outputs(subnet_pass)[module]):
                if ours.shape[2:] != theirs.shape[2:]:
                    raise must_be('DistillHook.same_pixels', f'True with {job.key}.mimic_name {module!r}, whose '
                                  f'outputs depend on the image size ({tuple(ours.shape)} at '
                                  f'{subnet_pass.image_size}, {tuple(theirs.shape)} at {self._own_size})', False)


def _detached(outputs: Outputs) -> Outputs:
    return {name: [tensor.detach() for tensor in tensors] for name, tensors in outputs.items()}
