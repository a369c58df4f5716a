"""BigNAS for MMEngine, MMDetection and MMPretrain: train one supernet, take any of its subnets.

Importing the package checks the packages that it builds on, registers its classes, and lets ``torch.load`` read
MMEngine's checkpoints. So a config that has ``custom_imports = dict(imports=['mmbignas'])`` needs nothing else.
"""

from .dependencies import check_dependencies
from .errors import ConfigError, DependencyError
from .version import __version__

check_dependencies()  # before anything below imports torch or an mm* package

from . import agreement, data, distill, elastic, evaluation, models, ops, supernet, train
from .utils.safe_globals import allow_mmengine_checkpoints
from .utils.safe_loading import load_as_data

allow_mmengine_checkpoints()
load_as_data()

__all__ = ['ConfigError', 'DependencyError', '__version__', 'agreement', 'data', 'distill', 'elastic', 'evaluation',
           'models', 'ops', 'supernet', 'train']
