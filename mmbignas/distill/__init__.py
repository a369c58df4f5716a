"""Distillation: recorders of module outputs, losses between them, and teachers."""
from mmbignas.distill.hard_labels import check_replaced, set_aside
from mmbignas.distill.job import DistillJob, parse_jobs, places
from mmbignas.distill.losses import DenseBoxLoss, DenseKLLoss, FeatureMSELoss
from mmbignas.distill.recorder import OutputRecorder, Outputs
from mmbignas.distill.soft_labels import AlphaDivergenceLoss, SoftLabelLoss
from mmbignas.distill.teacher import TeacherDistillation, TeacherSource

__all__ = ['AlphaDivergenceLoss', 'DenseBoxLoss', 'DenseKLLoss', 'DistillJob', 'FeatureMSELoss', 'OutputRecorder',
           'Outputs', 'SoftLabelLoss', 'TeacherDistillation', 'TeacherSource', 'check_replaced', 'parse_jobs',
           'places', 'set_aside']
