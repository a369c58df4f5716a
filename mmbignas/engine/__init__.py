"""Loops and hooks for MMEngine's Runner."""
from mmbignas.engine.hooks import BNCalibrationHook, DistillHook, RegularizeLargestHook
from mmbignas.engine.loops import SampleFlopsLoop, SandwichIterTrainLoop, SandwichTrainLoop, SubnetValLoop

__all__ = ['BNCalibrationHook', 'DistillHook', 'RegularizeLargestHook', 'SampleFlopsLoop', 'SandwichIterTrainLoop',
           'SandwichTrainLoop', 'SubnetValLoop']
