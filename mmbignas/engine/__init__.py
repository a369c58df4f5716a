"""Loops and hooks for MMEngine's Runner."""
from mmbignas.engine.hooks import (
    BNCalibrationHook,
    CalibrateFirstHook,
    DistillHook,
    RegularizeLargestHook,
    ValidateFirstHook,
)
from mmbignas.engine.loops import (
    EvaluateSubnetLoop,
    SampleFlopsLoop,
    SandwichIterTrainLoop,
    SandwichTrainLoop,
    SubnetValLoop,
)

__all__ = ['BNCalibrationHook', 'CalibrateFirstHook', 'DistillHook', 'EvaluateSubnetLoop', 'RegularizeLargestHook',
           'SampleFlopsLoop', 'SandwichIterTrainLoop', 'SandwichTrainLoop', 'SubnetValLoop', 'ValidateFirstHook']
