"""Training the adapters of distillation jobs beside a model."""
from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from mmengine.dist import all_reduce, broadcast, get_world_size
from mmengine.optim import OptimWrapper, OptimWrapperDict
from torch import Tensor, nn

from mmbignas.distill.adapters import Adapters
from mmbignas.distill.job import IN_PLACE, DistillJob, check_outputs, places
from mmbignas.distill.recorder import OutputRecorder, Outputs
from mmbignas.train.trial_pass import trial_batch, trial_pass
from mmbignas.utils.rules import must_be

STATE = 'distill_adapters'  # key in checkpoints


def build_adapters(runner: Any, jobs: Sequence[DistillJob], teachers: Mapping[str, nn.Module]) -> None:
    """Create the adapters of jobs for the widths that a few training images have at their modules.

    Args:
        runner: the runner, about to train.
        jobs: those with adapters.
        teachers: name -> network, beside the largest subnet.

    Raises:
        ConfigError: for modules that are missing, that have no outputs or none that an adapter can map, or a data set
            without single images to look at.
    """
    batch = trial_batch(runner)
    if batch is None:
        raise must_be(f'{jobs[0].key}.widths', 'equal or first_channels with an iterable data set in train_dataloader, '
                      'whose images cannot be read one by one', 'adapter')
    supernet = getattr(runner.train_loop, 'supernet', None)
    if supernet is not None:
        supernet.apply(supernet.space.max())
    recorder = OutputRecorder(runner.model, places(jobs, 'mimic_name'))
    recorder.start()
    trial_pass(runner, batch)
    student = recorder.stop()
    recorder.remove()
    for job in jobs:
        taught = student if job.teacher == IN_PLACE else _outputs(teachers[job.teacher], job, batch)
        check_outputs(student, [job], 'mimic_name')
        check_outputs(taught, [job], 'teacher_mimic_name')
        assert job.adapters is not None
        job.adapters.build([student[name] for name in job.names], [taught[name] for name in job.teacher_names])


def _outputs(teacher: Any, job: DistillJob, batch: Any) -> Outputs:
    """What the modules of a teacher put out."""
    recorder = OutputRecorder(teacher, places([job], 'teacher_mimic_name'))
    recorder.start()
    with torch.no_grad():
        teacher._run_forward(batch, mode='tensor')
    outputs = recorder.stop()
    recorder.remove()
    return outputs


class AdapterTraining:
    """Puts adapters into the optimizer of a run, and into its checkpoints, but not into its model.

    As new layers, they join the group of parameters with the highest learning rate, and if there are several, the one
    with the highest weight decay. So schedules, clipping and mixed precision treat them like the model's parameters. In
    each backward pass their gradients are averaged over the processes.

    Args:
        runner: the runner, about to train, before it loads a checkpoint.
        adapters: name of a job -> its adapters, built.

    Raises:
        ConfigError: for several optimizers.
    """

    def __init__(self, runner: Any, adapters: Mapping[str, Adapters]) -> None:
        optim_wrapper = runner.optim_wrapper
        if not isinstance(optim_wrapper, OptimWrapper) or isinstance(optim_wrapper, OptimWrapperDict):
            raise must_be('optim_wrapper', "an OptimWrapper, for one optimizer, with widths='adapter'",
                          type(optim_wrapper).__name__)
        like = next(runner.model.parameters())
        # Names that a ModuleDict can have: some are taken (`type`, `keys`), none has a dot.
        self.adapters = nn.ModuleDict({
            f'{name}_adapters'.replace('.', '/'): own for name, own in adapters.items()}).to(like)
        parameters = list(self.adapters.parameters())
        if get_world_size() > 1:
            # A group of their own: a wrapper such as DDP reduces the model's gradients at the same time.
            self._group = torch.distributed.new_group()
            for parameter in parameters:
                broadcast(parameter.data)
                parameter.register_post_accumulate_grad_hook(self._average)
        optimizer = optim_wrapper.optimizer
        group = max(optimizer.param_groups,
                    key=lambda own: (own.get('initial_lr', own['lr']), own.get('weight_decay', 0)))
        group['params'].extend(parameters)

    def _average(self, parameter: Tensor) -> None:
        """Average what has been accumulated; what was averaged before stays as it is."""
        assert parameter.grad is not None
        all_reduce(parameter.grad, 'mean', self._group)

    def save(self, checkpoint: dict[str, Any]) -> None:
        """Add the weights to a checkpoint."""
        checkpoint.setdefault(STATE, {}).update(self.adapters.state_dict())

    def load(self, checkpoint: Mapping[str, Any]) -> None:
        """Take the weights from a checkpoint of a run that is resumed.

        Raises:
            ConfigError: for a checkpoint of other jobs.
        """
        state = checkpoint.get(STATE, {})
        found = {name: value for name, value in state.items() if name.partition('.')[0] in self.adapters}
        try:
            self.adapters.load_state_dict(found)
        except RuntimeError:
            raise must_be('DistillHook.jobs', 'those that the checkpoint to resume from was trained with, adapters '
                          f'{list(state)}', list(self.adapters.state_dict())) from None


def check_left_over(checkpoint: Mapping[str, Any], trained: Iterable[AdapterTraining | None]) -> None:
    """Refuse to resume a run without adapters that it had, since the optimizer's state has them too.

    Raises:
        ConfigError: for adapters in the checkpoint that none of the hooks has.
    """
    known = {name for own in trained if own is not None for name in own.adapters}
    left = {name.partition('.')[0] for name in checkpoint.get(STATE, {})} - known
    if left:
        raise must_be('DistillHook.jobs', 'those that the checkpoint to resume from was trained with, adapters '
                      f'{sorted(left)}', sorted(known))
