"""Distillation as a hook: in place in the sandwich loop, or from other networks in any training loop."""
from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mmengine.hooks import Hook
from mmengine.runner import BaseLoop
from torch import nn

from mmbignas.distill.adapter_training import STATE, AdapterTraining, build_adapters, check_left_over
from mmbignas.distill.in_place import InPlaceTeacher
from mmbignas.distill.job import (
    IN_PLACE,
    DistillJob,
    check_outputs,
    check_replaced,
    check_scores,
    places,
    set_aside,
)
from mmbignas.distill.parsing import parse_jobs
from mmbignas.distill.recorder import OutputRecorder, data_samples_of
from mmbignas.distill.teacher import TeacherDistillation, parse_teachers
from mmbignas.errors import ConfigError
from mmbignas.registry import HOOKS
from mmbignas.train.sandwich_rule import sandwich_rule
from mmbignas.train.subnet_pass import SubnetPass
from mmbignas.train.trial_pass import trial_batch, trial_pass
from mmbignas.utils.models import unwrapped
from mmbignas.utils.random_states import preserved_rng
from mmbignas.utils.rules import boolean, must_be


@HOOKS.register_module()
class DistillHook(Hook):
    """Adds losses between the outputs of students and teachers at the same modules.

    A job names modules, a loss, and one or several teachers. The teacher ``max`` is the largest subnet of the same
    iteration: in-place distillation (BigNAS, section 3.1), which is what happens without ``teacher``. The outputs of
    the named modules in its pass are kept, detached, and compared with those of each later pass. They belong to one
    batch: a schedule in which teacher and student would see different batches is refused. The largest subnet is never
    a student of itself. Losses are logged as ``<subnet>.loss_distill_<job>``.

    A teacher given by ``teacher`` is another network. It teaches the model in MMEngine's training loops and in those of
    supernets, where every pass is a student. It computes in eval mode, without gradients, once for each preprocessed
    batch, and is no part of the model: neither its checkpoints nor the optimizer know of it. Losses are logged as
    ``loss_distill_<job>``, and where a job has several teachers as ``loss_distill_<job>_<teacher>``. A supernet as the
    teacher is its largest subnet, with BN statistics calibrated before the first iteration, also after a resume, with
    images of ``train_dataloader``.

    A job may stand in for some of the model's own losses: in BigNAS, the smaller subnets of a classifier learn from
    the soft labels of the largest alone. Students are not trained on the losses that ``replaces`` names. These stay in
    the log, with ``hard_label`` for ``loss`` in their names. In place, the largest subnet keeps them.

    Where the passes of an iteration see the batch in several image sizes, the largest subnet computes once more,
    without gradients, for each size that it does not see itself, so that a student's teacher has always seen the same
    pixels. BigNAS does without: the largest subnet's probabilities at its own image size teach all others (section
    3.1). This is ``same_pixels=False``, for outputs whose shape does not depend on the image size.

    Student and teacher of a two-stage detector look at regions of their own. Modules in its ``roi_head`` are compared
    on the teacher's: the student's second stage computes once more, from its own features, on these.

    Args:
        jobs: name -> dict of

            - ``mimic_name``: the path of a module in the model, or a list of paths.
            - ``loss=dict(type=...)``: one of those in :mod:`mmbignas.distill`, or a registered one like them, see
              :mod:`mmbignas.distill.recorder`.
            - ``teacher``: name of a teacher, a list of names, or a dict of names and, for each,
              ``dict(mimic_name=..., loss_weight=1.)``, the modules in this teacher and a factor for its loss. With one
              teacher for the hook, or none, it need not be said.
            - ``teacher_mimic_name``: the modules in teachers where they are called something else.
            - ``loss_weight=1.``: factor of the loss.
            - ``warm_up_iters=0``: number of iterations over which the factor grows linearly from 0.
            - ``begin=0`` and ``end=None``: the first iteration with this loss, and the first one without it again.
            - ``widths``: what happens where the numbers of channels differ. ``first_channels`` compares those that both
              have, since a subnet's are the first ones of the supernet's; it is usual in place. ``adapter`` trains a
              linear map of the student's channels to the teacher's, see :class:`~mmbignas.distill.Adapters`. ``equal``
              refuses them; it is usual for other networks.
            - ``replaces``: the name, or a list of names, of losses to stand in for, as the model returns them, e.g.
              ``loss_cls``. Without warm-up.
        teacher: ``dict(config=..., checkpoint=..., num_images=2048)`` with a config file, or the config of a model,
            its weights, and the number of images to calibrate a supernet with. For several teachers, a dict of names
            and such dicts.
        same_pixels: in place, whether students at another image size than the largest subnet's are taught by what it
            puts out at theirs.

    Raises:
        ConfigError: for a job or a teacher that is not complete; and, before training, for a module that is not in the
            model, a loss to replace that it does not have, in place for a training loop whose iterations do not begin
            with the largest subnet, with another teacher for a config or checkpoint that cannot be used. In the first
            iteration, for outputs that cannot be compared.
    """

    needs_sandwich = True  # means nothing in the training of one network

    checkpoint_keys = (STATE,)

    def __init__(self, jobs: Mapping[str, Mapping[str, Any]], teacher: Mapping[str, Any] | None = None,
                 same_pixels: bool = True) -> None:
        self.teachers = parse_teachers(teacher, 'DistillHook.teacher')
        self.jobs = parse_jobs(jobs, 'DistillHook.jobs', list(self.teachers))
        self.in_place_jobs = self._taught_by(IN_PLACE)
        for name, own in self.teachers.items():
            if not self._taught_by(name):
                raise must_be(own.key, 'a teacher of some job', name)
        self.same_pixels = boolean().check(same_pixels, 'DistillHook.same_pixels')
        self._networks: dict[str, nn.Module] = {}
        self._distillations: list[TeacherDistillation] = []
        self._adapters: AdapterTraining | None = None

    def _taught_by(self, teacher: str) -> dict[str, DistillJob]:
        return {name: job for name, job in self.jobs.items() if job.teacher == teacher}

    def before_run(self, runner: Any) -> None:
        """Look for the teachers' files, and create adapters before the optimizer's state is loaded."""
        if not isinstance(runner._train_loop, BaseLoop):
            return
        for own in self.teachers.values():
            own.check_files()
        self._check_names(runner)
        check_scores(unwrapped(runner.model), self.jobs.values())
        adapters = {name: job.adapters for name, job in self.jobs.items() if job.adapters is not None}
        if not adapters:
            return
        self._check_schedule(runner)
        self._build_teachers(runner)
        with preserved_rng():
            build_adapters(runner, [job for job in self.jobs.values() if job.adapters is not None], self._networks)
        self._adapters = AdapterTraining(runner, adapters)

    def _check_names(self, runner: Any) -> None:
        """Refuse several hooks with the same job, of whose losses one would take the other's place."""
        for hook in runner.hooks:
            shared = {*self.jobs} & {*hook.jobs} if isinstance(hook, DistillHook) and hook is not self else ()
            if shared:
                raise ConfigError(f'DistillHook.jobs must have names of their own: {", ".join(sorted(shared))} in '
                                  'several hooks (one hook may have several teachers)')

    def before_save_checkpoint(self, runner: Any, checkpoint: dict[str, Any]) -> None:
        """Keep the adapters' weights, beside the model's."""
        if self._adapters is not None:
            self._adapters.save(checkpoint)

    def after_load_checkpoint(self, runner: Any, checkpoint: dict[str, Any]) -> None:
        """Take the adapters' weights from the checkpoint of a run that is resumed."""
        if runner._resume:
            if self._adapters is not None:
                self._adapters.load(checkpoint)
            check_left_over(checkpoint, [hook._adapters for hook in runner.hooks if isinstance(hook, DistillHook)])

    def before_train(self, runner: Any) -> None:
        """Check the schedule, build the teachers, and begin to watch the named modules."""
        self._check_schedule(runner)
        if any(job.replaces for job in self.jobs.values()):
            batch = trial_batch(runner)
            if batch is not None:
                check_replaced(trial_pass(runner, batch), self.jobs.values())
        if self.in_place_jobs:
            self._recorder = OutputRecorder(runner.model, places(self.in_place_jobs.values(), 'mimic_name'))
            self._in_place = InPlaceTeacher(self._recorder, self.same_pixels)
        self._build_teachers(runner)
        model = unwrapped(runner.model)
        self._distillations = [TeacherDistillation(model, network, self._taught_by(name), lambda: runner.iter)
                               for name, network in self._networks.items()]

    def _check_schedule(self, runner: Any) -> None:
        """Refuse training loops in which the largest subnet cannot teach."""
        if not self.in_place_jobs:
            return
        rule = sandwich_rule(runner, 'a DistillHook without teacher')
        if not rule.max_leads:
            raise must_be('train_cfg.sample_strategy', 'a list of several with max first, all in one iteration, for '
                          'in-place distillation: teacher and students see the same batch',
                          [choice.name for choice in rule.choices][:rule.sample_subnet_num])

    def _build_teachers(self, runner: Any) -> None:
        for name, own in self.teachers.items():
            if name not in self._networks:
                self._networks[name] = own.build(runner)
                check_scores(self._networks[name], self._taught_by(name).values(), 'teacher_mimic_name')

    def _active(self, subnet_pass: SubnetPass) -> dict[str, DistillJob]:
        """The in-place jobs in a pass, with which the largest subnet teaches or a smaller one is taught."""
        if subnet_pass.is_max and subnet_pass.index > 0:
            return {}
        return {name: job for name, job in self.in_place_jobs.items() if job.active(subnet_pass.iteration)}

    def before_subnet_forward(self, runner: Any, subnet_pass: SubnetPass) -> None:
        """Record this pass, unless the largest subnet comes a second time."""
        if self._active(subnet_pass):
            if not subnet_pass.is_max:
                self._in_place.prepare(runner, subnet_pass)
            self._recorder.start()

    def after_subnet_forward(self, runner: Any, subnet_pass: SubnetPass, losses: dict[str, Any]) -> None:
        """Keep the largest subnet's outputs, or add the losses of its students.

        Those of other teachers have been added by the model itself.

        Raises:
            ConfigError: for a named module that had no output in this pass.
            RuntimeError: when the teacher's outputs are of another iteration, and so of another batch.
        """
        jobs = self._active(subnet_pass)
        if not jobs:
            return
        outputs = self._recorder.stop()
        if not subnet_pass.is_max:
            taught = self._in_place.outputs(subnet_pass)
            outputs = self._recorder.on_regions(outputs, self._in_place.regions(subnet_pass))
        check_outputs(outputs, jobs.values(), 'mimic_name', f'the pass of {subnet_pass.name}')
        if subnet_pass.is_max:
            self._in_place.keep(subnet_pass, outputs)
            return
        set_aside(losses, jobs.values())
        for name, job in jobs.items():
            self._in_place.check(subnet_pass, job, outputs)
            losses[f'loss_distill_{name}'] = job(outputs, taught, subnet_pass.iteration,
                                                 data_samples_of(runner.train_loop.data))

    def after_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        """Let go of the teachers' outputs."""
        if self.in_place_jobs:
            self._in_place.forget()
        for distillation in self._distillations:
            distillation.forget()

    def after_train(self, runner: Any) -> None:
        """Take everything off the model."""
        if self.in_place_jobs:
            self._recorder.remove()
        for distillation in self._distillations:
            distillation.remove()
        self._distillations = []
