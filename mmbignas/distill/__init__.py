"""Distillation: recorders of module outputs, losses between them, and teachers."""
from mmbignas.distill.adapters import Adapters
from mmbignas.distill.distill_hook import DistillHook
from mmbignas.distill.job import IN_PLACE, DistillJob, check_replaced, places, set_aside
from mmbignas.distill.losses.dense import DenseBoxLoss, DenseGIoULoss, DenseKLLoss
from mmbignas.distill.losses.features import FeatureMSELoss
from mmbignas.distill.losses.region_boxes import RegionBoxLoss
from mmbignas.distill.losses.soft_labels import (
    AlphaDivergenceLoss,
    GuidedSoftLabelLoss,
    SoftBCELoss,
    SoftCrossEntropyLoss,
    SoftLabelLoss,
)
from mmbignas.distill.parsing import parse_jobs
from mmbignas.distill.recorder import OutputRecorder, Outputs, data_samples_of
from mmbignas.distill.teacher import Teacher, TeacherDistillation

__all__ = ['Adapters', 'AlphaDivergenceLoss', 'DenseBoxLoss', 'DenseGIoULoss', 'DenseKLLoss', 'DistillHook',
           'DistillJob', 'FeatureMSELoss', 'GuidedSoftLabelLoss', 'IN_PLACE', 'OutputRecorder', 'Outputs',
           'RegionBoxLoss', 'SoftBCELoss', 'SoftCrossEntropyLoss', 'SoftLabelLoss', 'Teacher', 'TeacherDistillation',
           'check_replaced', 'data_samples_of', 'parse_jobs', 'places', 'set_aside']
