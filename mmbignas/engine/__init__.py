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
    SampleAccuracyLoop,
    SampleFlopsLoop,
    SandwichIterTrainLoop,
    SandwichTrainLoop,
    SubnetSearchLoop,
    SubnetValLoop,
)

__all__ = ['BNCalibrationHook', 'CalibrateFirstHook', 'DistillHook', 'EvaluateSubnetLoop', 'RegularizeLargestHook',
           'SampleAccuracyLoop', 'SampleFlopsLoop', 'SandwichIterTrainLoop', 'SandwichTrainLoop', 'SubnetSearchLoop',
           'SubnetValLoop', 'ValidateFirstHook']
