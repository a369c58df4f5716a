"""The sandwich rule and loop, and the hooks of training."""
from mmbignas.train.before_training import CalibrateFirstHook, ValidateFirstHook
from mmbignas.train.mixed_precision import BFloat16OptimWrapper, ChannelsLastHook
from mmbignas.train.regularize_largest_hook import RegularizeLargestHook
from mmbignas.train.resume.resume_hook import ResumeHook
from mmbignas.train.resume.stop_hook import StopHook
from mmbignas.train.sandwich_loop import SandwichIterTrainLoop, SandwichLoop, SandwichTrainLoop
from mmbignas.train.watch.losses import CollapseHook, SubnetLossHook
from mmbignas.train.watch.same_on_all_ranks_hook import SameOnAllRanksHook
from mmbignas.train.watch.skip_non_finite_hook import SkipNonFiniteHook

__all__ = ['BFloat16OptimWrapper', 'CalibrateFirstHook', 'ChannelsLastHook', 'CollapseHook', 'RegularizeLargestHook',
           'ResumeHook', 'SameOnAllRanksHook', 'SandwichIterTrainLoop', 'SandwichLoop', 'SandwichTrainLoop',
           'SkipNonFiniteHook', 'StopHook', 'SubnetLossHook', 'ValidateFirstHook']
