"""Distillation as a hook: in place in the sandwich loop, or from another network in any training loop."""
from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mmengine.hooks import Hook

from mmbignas.distill import OutputRecorder, TeacherDistillation, parse_jobs, places, set_aside
from mmbignas.engine.hooks.in_place_teacher import InPlaceTeacher
from mmbignas.engine.hooks.replaced_losses import check_replaced_first
from mmbignas.engine.hooks.teacher import Teacher, parse_teacher
from mmbignas.engine.sandwich import SandwichRule, SubnetPass
from mmbignas.errors import ConfigError
from mmbignas.registry import HOOKS


@HOOKS.register_module()
class DistillHook(Hook):
    """The losses between what a student and a teacher put out at the same modules.

    Without ``teacher`` it is in-place distillation: the largest subnet teaches the others of the same iteration
    (BigNAS, section 3.1). The outputs of the named modules in the largest subnet's pass are kept, detached, and
    compared with those of each later pass. They belong to one batch: a schedule in which teacher and student would see
    different batches is refused. The largest subnet is never a student of itself. Losses are logged as
    ``<subnet>.loss_distill_<job>``.

    With ``teacher`` another network teaches the model, in MMEngine's training loops and in those of supernets, where
    every pass is a student. It computes in eval mode, without gradients, once for each preprocessed batch, and is no
    part of the model: neither its checkpoints nor the optimizer know of it. Losses are logged as
    ``loss_distill_<job>``. A supernet as the teacher is its largest subnet, with BN statistics calibrated before the
    first iteration, also after a resume, with images of ``train_dataloader``.

    A job may stand in for some of the model's own losses: in BigNAS, the smaller subnets of a classifier learn from
    the soft labels of the largest alone. Students are not trained on the losses that ``replaces`` names. These stay in
    the log, with ``hard_label`` for ``loss`` in their names. Without ``teacher``, the largest subnet keeps them.

    Where the passes of an iteration see the batch in several image sizes, the largest subnet computes once more,
    without gradients, for each size that it does not see itself, so that a student's teacher has always seen the same
    pixels. BigNAS does without: the largest subnet's probabilities at its own image size teach all others (section
    3.1). This is ``same_pixels=False``, for outputs whose shape does not depend on the image size.

    Args:
        jobs: name -> ``dict(mimic_name=..., loss=dict(type=...), loss_weight=1., warm_up_iters=0)``, where
            ``mimic_name`` is the path of a module in the model, or a list of paths, and ``loss`` is one of
            :class:`~mmbignas.distill.FeatureMSELoss`, :class:`~mmbignas.distill.DenseKLLoss`,
            :class:`~mmbignas.distill.DenseBoxLoss`, :class:`~mmbignas.distill.SoftLabelLoss`,
            :class:`~mmbignas.distill.AlphaDivergenceLoss` or a registered loss with the same signature. With
            ``teacher``, ``teacher_mimic_name`` gives the modules in the teacher where they are called something else.
            ``replaces``, without warm-up, is the name, or a list of names, of losses to stand in for, as the model
            returns them, e.g. ``loss_cls``.
        teacher: ``dict(config=..., checkpoint=..., num_images=2048)`` with a config file, or the config of a model,
            its weights, and the number of images to calibrate a supernet with.
        same_pixels: in place, whether students at another image size than the largest subnet's are taught by what it
            puts out at theirs.

    Raises:
        ConfigError: for a job or a teacher that is not complete; and, before training, for a module that is not in the
            model, a loss to replace that it does not have, without a teacher for a training loop whose iterations do
            not begin with the largest subnet, with one for a config or checkpoint that cannot be used. In the first
            iteration, for outputs that cannot be compared.
    """

    def __init__(self, jobs: Mapping[str, Mapping[str, Any]], teacher: Mapping[str, Any] | None = None,
                 same_pixels: bool = True) -> None:
        self.jobs = parse_jobs(jobs, 'DistillHook.jobs')
        self.teacher: Teacher | None = None if teacher is None else parse_teacher(teacher, 'DistillHook.teacher')
        for name, job in jobs.items():
            if teacher is None and 'teacher_mimic_name' in job:
                raise ConfigError(f'DistillHook.jobs.{name}.teacher_mimic_name: {job["teacher_mimic_name"]!r} is not '
                                  'allowed without DistillHook.teacher: the largest subnet has the same modules')
        if not isinstance(same_pixels, bool) or teacher is not None and not same_pixels:
            raise ConfigError(f'DistillHook.same_pixels: {same_pixels!r} is not allowed; allowed: True, or, without '
                              'DistillHook.teacher, False')
        self.same_pixels = same_pixels
        self._distillation: TeacherDistillation | None = None

    def before_train(self, runner: Any) -> None:
        """Check the schedule or build the teacher, and begin to watch the named modules."""
        if self.teacher is not None:
            check_replaced_first(runner, self.jobs, 'DistillHook.jobs')
            self._distillation = self.teacher.distillation(runner, self.jobs, 'DistillHook')
            return
        rule = getattr(runner.train_loop, 'rule', None)
        if not isinstance(rule, SandwichRule):
            raise ConfigError(f'DistillHook: train_cfg.type {type(runner.train_loop).__name__} is not allowed; allowed:'
                              ' SandwichTrainLoop, SandwichIterTrainLoop, or any other with DistillHook.teacher')
        if not rule.max_leads:
            raise ConfigError(f'DistillHook: in-place distillation needs the largest subnet and its students in the '
                              f'same iteration, but train_cfg has sample_subnet_num={rule.sample_subnet_num} and '
                              f'sample_strategy {[choice.name for choice in rule.choices]}; allowed: '
                              "sample_subnet_num of 2 or more with 'max' first")
        if not self.same_pixels and (rule.share_interpolation or len(rule.image_sizes) < 2):
            raise ConfigError('DistillHook.same_pixels: False is not allowed where all passes of an iteration see the '
                              'same image size; allowed: True, or several train_cfg.image_size_list without '
                              'share_interpolation')
        check_replaced_first(runner, self.jobs, 'DistillHook.jobs')
        self._recorder = OutputRecorder(runner.model, places(self.jobs, 'DistillHook.jobs', 'mimic_name'))
        self._in_place = InPlaceTeacher(self._recorder, self.same_pixels)

    def before_subnet_forward(self, runner: Any, subnet_pass: SubnetPass) -> None:
        """Record this pass, unless the largest subnet comes a second time."""
        if self.teacher is None and (not subnet_pass.is_max or subnet_pass.index == 0):
            if not subnet_pass.is_max:
                self._in_place.prepare(runner, subnet_pass)
            self._recorder.start()

    def after_subnet_forward(self, runner: Any, subnet_pass: SubnetPass, losses: dict[str, Any]) -> None:
        """Keep the teacher's outputs, or add the student's losses.

        Raises:
            ConfigError: for a named module that had no output in this pass.
            RuntimeError: when the teacher's outputs are of another iteration, and so of another batch.
        """
        if self.teacher is not None:
            return  # the model has added them itself
        outputs = self._recorder.stop()
        if subnet_pass.is_max and subnet_pass.index > 0:
            return
        for key, job in self.jobs.items():
            for name in job.names:
                if not outputs.get(name):
                    raise ConfigError(f'DistillHook.jobs.{key}.mimic_name: {name!r} has no output in the pass of '
                                      f'{subnet_pass.name}; allowed: modules that every subnet calls')
        if subnet_pass.is_max:
            self._in_place.keep(subnet_pass, outputs)
            return
        taught = self._in_place.outputs(subnet_pass)
        set_aside(losses, self.jobs, 'DistillHook.jobs')
        for name, job in self.jobs.items():
            self._in_place.check(subnet_pass, name, job, outputs)
            losses[f'loss_distill_{name}'] = job(outputs, taught, subnet_pass.iteration)

    def after_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        """Let go of the teacher's outputs."""
        if self._distillation is None:
            self._in_place.forget()
        else:
            self._distillation.forget()

    def after_train(self, runner: Any) -> None:
        """Take everything off the model."""
        if self._distillation is None:
            self._recorder.remove()
        else:
            self._distillation.remove()
            self._distillation = None
