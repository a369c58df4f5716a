"""Dynamic layers: torch layers that can compute with a part of themselves."""
from mmbignas.ops.dynamic_conv import DynamicConv2d, shared_weights
from mmbignas.ops.dynamic_layer import DynamicLayer
from mmbignas.ops.dynamic_linear import DynamicLinear
from mmbignas.ops.dynamic_norm import DynamicBatchNorm2d, DynamicSyncBatchNorm2d, SwitchableBatchNorm2d
from mmbignas.ops.slicing import crop, crop_kernel, plain_state

__all__ = ['DynamicBatchNorm2d', 'DynamicConv2d', 'DynamicLayer', 'DynamicLinear', 'DynamicSyncBatchNorm2d',
           'SwitchableBatchNorm2d', 'crop', 'crop_kernel', 'plain_state', 'shared_weights']
