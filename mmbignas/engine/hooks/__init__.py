"""Hooks: what is added to the passes of training and to the evaluation of subnets."""
from mmbignas.engine.hooks.bn_calibration_hook import BNCalibrationHook
from mmbignas.engine.hooks.calibrate_first_hook import CalibrateFirstHook
from mmbignas.engine.hooks.channels_last_hook import ChannelsLastHook
from mmbignas.engine.hooks.collapse_hook import CollapseHook
from mmbignas.engine.hooks.distill_hook import DistillHook
from mmbignas.engine.hooks.regularize_largest_hook import RegularizeLargestHook
from mmbignas.engine.hooks.resume_hook import ResumeHook
from mmbignas.engine.hooks.same_on_all_ranks_hook import SameOnAllRanksHook
from mmbignas.engine.hooks.skip_non_finite_hook import SkipNonFiniteHook
from mmbignas.engine.hooks.stop_hook import StopHook
from mmbignas.engine.hooks.subnet_loss_hook import SubnetLossHook
from mmbignas.engine.hooks.validate_first_hook import ValidateFirstHook

__all__ = ['BNCalibrationHook', 'CalibrateFirstHook', 'ChannelsLastHook', 'CollapseHook', 'DistillHook',
           'RegularizeLargestHook', 'ResumeHook', 'SameOnAllRanksHook', 'SkipNonFiniteHook', 'StopHook',
           'SubnetLossHook', 'ValidateFirstHook']
