"""Hooks: what is added to the passes of training and to the evaluation of subnets."""
from mmbignas.engine.hooks.bn_calibration_hook import BNCalibrationHook
from mmbignas.engine.hooks.calibrate_first_hook import CalibrateFirstHook
from mmbignas.engine.hooks.distill_hook import DistillHook
from mmbignas.engine.hooks.regularize_largest_hook import RegularizeLargestHook
from mmbignas.engine.hooks.validate_first_hook import ValidateFirstHook

__all__ = ['BNCalibrationHook', 'CalibrateFirstHook', 'DistillHook', 'RegularizeLargestHook', 'ValidateFirstHook']
