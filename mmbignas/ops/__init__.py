"""Dynamic layers: torch layers that can compute with a part of themselves."""
from mmbignas.ops.dynamic_conv import DynamicConv2d, shared_weights
from mmbignas.ops.dynamic_layer import DynamicLayer, crop
from mmbignas.ops.dynamic_linear import DynamicLinear
from mmbignas.ops.dynamic_norm import DynamicBatchNorm2d, DynamicSyncBatchNorm2d, SwitchableBatchNorm2d

__all__ = ['DynamicBatchNorm2d', 'DynamicConv2d', 'DynamicLayer', 'DynamicLinear', 'DynamicSyncBatchNorm2d',
           'SwitchableBatchNorm2d', 'crop', 'shared_weights']
