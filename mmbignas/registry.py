"""The registries of scope ``mmbignas``, children of MMEngine's root registries.

A config names a class of this package as ``type='mmbignas.X'``, which MMEngine resolves by itself: it imports this
module and, at the first look-up, the packages listed in ``locations``.
"""

from mmengine.registry import HOOKS as MMENGINE_HOOKS
from mmengine.registry import LOOPS as MMENGINE_LOOPS
from mmengine.registry import MODELS as MMENGINE_MODELS
from mmengine.registry import OPTIM_WRAPPERS as MMENGINE_OPTIM_WRAPPERS
from mmengine.registry import WEIGHT_INITIALIZERS as MMENGINE_WEIGHT_INITIALIZERS
from mmengine.registry import Registry

__all__ = ['HOOKS', 'LOOPS', 'MODELS', 'OPTIM_WRAPPERS', 'WEIGHT_INITIALIZERS']

SCOPE = 'mmbignas'

MODELS = Registry(
    'model',
    parent=MMENGINE_MODELS,
    scope=SCOPE,
    locations=['mmbignas.ops', 'mmbignas.models', 'mmbignas.data', 'mmbignas.distill', 'mmbignas.elastic'],
)
LOOPS = Registry('loop', parent=MMENGINE_LOOPS, scope=SCOPE, locations=['mmbignas.train', 'mmbignas.evaluation'])
HOOKS = Registry(
    'hook', parent=MMENGINE_HOOKS, scope=SCOPE, locations=['mmbignas.train', 'mmbignas.evaluation', 'mmbignas.distill']
)
OPTIM_WRAPPERS = Registry(
    'optimizer wrapper', parent=MMENGINE_OPTIM_WRAPPERS, scope=SCOPE, locations=['mmbignas.train']
)
WEIGHT_INITIALIZERS = Registry(
    'weight initializer',
    parent=MMENGINE_WEIGHT_INITIALIZERS,
    scope=SCOPE,
    locations=['mmbignas.supernet', 'mmbignas.elastic'],
)
