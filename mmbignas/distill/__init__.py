"""Distillation: recorders of module outputs, losses between them, and teachers."""
from mmbignas.distill.adapters import Adapters
from mmbignas.distill.dense_losses import DenseBoxLoss, DenseGIoULoss, DenseKLLoss
from mmbignas.distill.feature_losses import FeatureMSELoss
from mmbignas.distill.hard_labels import check_replaced, set_aside
from mmbignas.distill.job import IN_PLACE, DistillJob, places
from mmbignas.distill.label_losses import GuidedSoftLabelLoss, SoftBCELoss, SoftCrossEntropyLoss
from mmbignas.distill.outputs import data_samples_of
from mmbignas.distill.parsing import parse_jobs
from mmbignas.distill.recorder import OutputRecorder, Outputs
from mmbignas.distill.soft_labels import AlphaDivergenceLoss, SoftLabelLoss
from mmbignas.distill.teacher import TeacherDistillation, TeacherSource

__all__ = ['Adapters', 'AlphaDivergenceLoss', 'DenseBoxLoss', 'DenseGIoULoss', 'DenseKLLoss', 'DistillJob',
           'FeatureMSELoss', 'GuidedSoftLabelLoss', 'IN_PLACE', 'OutputRecorder', 'Outputs', 'SoftBCELoss',
           'SoftCrossEntropyLoss', 'SoftLabelLoss', 'TeacherDistillation', 'TeacherSource', 'check_replaced',
           'data_samples_of', 'parse_jobs', 'places', 'set_aside']
