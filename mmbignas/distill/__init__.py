"""Distillation: recorders of module outputs, losses between them, and teachers."""
from mmbignas.distill.job import DistillJob, parse_jobs
from mmbignas.distill.losses import DenseBoxLoss, DenseKLLoss, FeatureMSELoss
from mmbignas.distill.recorder import OutputRecorder, Outputs
from mmbignas.distill.teacher import TeacherDistillation, TeacherSource

__all__ = ['DenseBoxLoss', 'DenseKLLoss', 'DistillJob', 'FeatureMSELoss', 'OutputRecorder', 'Outputs',
           'TeacherDistillation', 'TeacherSource', 'parse_jobs']
