"""The registries of scope ``mmbignas``, children of MMEngine's root registries.

A config names a class of this package as ``type='mmbignas.X'``, which MMEngine resolves by itself: it imports this
module and, at the first look-up, the packages listed in ``locations``.
"""

from mmengine import registry as root
from mmengine.registry import Registry

__all__ = ['HOOKS', 'LOOPS', 'MODELS', 'OPTIM_WRAPPERS', 'WEIGHT_INITIALIZERS']

SCOPE = 'mmbignas'

MODELS = Registry(
    'model', parent=root.MODELS, scope=SCOPE,
    locations=['mmbignas.ops', 'mmbignas.models', 'mmbignas.data', 'mmbignas.distill', 'mmbignas.elastic'])
LOOPS = Registry('loop', parent=root.LOOPS, scope=SCOPE, locations=['mmbignas.train', 'mmbignas.evaluation'])
HOOKS = Registry('hook', parent=root.HOOKS, scope=SCOPE,
                 locations=['mmbignas.agreement', 'mmbignas.train', 'mmbignas.evaluation', 'mmbignas.distill'])
OPTIM_WRAPPERS = Registry('optimizer wrapper', parent=root.OPTIM_WRAPPERS, scope=SCOPE, locations=['mmbignas.train'])
WEIGHT_INITIALIZERS = Registry('weight initializer', parent=root.WEIGHT_INITIALIZERS, scope=SCOPE,
                               locations=['mmbignas.supernet', 'mmbignas.elastic'])
