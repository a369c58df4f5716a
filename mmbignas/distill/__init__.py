"""Distillation: recorders of module outputs, and losses between them."""
from mmbignas.distill.losses import DenseBoxLoss, DenseKLLoss, FeatureMSELoss
from mmbignas.distill.recorder import OutputRecorder, Outputs

__all__ = ['DenseBoxLoss', 'DenseKLLoss', 'FeatureMSELoss', 'OutputRecorder', 'Outputs']
