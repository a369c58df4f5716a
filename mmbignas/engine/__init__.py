"""Loops and hooks for MMEngine's Runner."""
from mmbignas.engine.bfloat16 import BFloat16OptimWrapper
from mmbignas.engine.hooks import (
    BNCalibrationHook,
    CalibrateFirstHook,
    ChannelsLastHook,
    CollapseHook,
    DistillHook,
    RegularizeLargestHook,
    ResumeHook,
    SameOnAllRanksHook,
    SkipNonFiniteHook,
    StopHook,
    SubnetLossHook,
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

__all__ = ['BFloat16OptimWrapper', 'BNCalibrationHook', 'CalibrateFirstHook', 'ChannelsLastHook', 'CollapseHook',
           'DistillHook', 'EvaluateSubnetLoop', 'RegularizeLargestHook', 'ResumeHook', 'SameOnAllRanksHook',
           'SampleAccuracyLoop', 'SampleFlopsLoop', 'SandwichIterTrainLoop', 'SandwichTrainLoop', 'SkipNonFiniteHook',
           'StopHook', 'SubnetLossHook', 'SubnetSearchLoop', 'SubnetValLoop', 'ValidateFirstHook']
