"""The search for the best subnets, on Optuna. Nothing here imports torch itself."""
from mmbignas.errors import DependencyError

try:
    import optuna  # noqa: F401
    import sklearn  # noqa: F401
except ImportError as error:
    raise DependencyError(f'the search needs {error.name}, which cannot be imported ({error}): '
                          'pip install "mmbignas[search]"') from None

from mmbignas.search.accuracy_predictor import AccuracyPredictor, RankCorrelation
from mmbignas.search.coarse_to_fine import CoarseToFineSampler
from mmbignas.search.constraints import Constraints
from mmbignas.search.encoding import Encoding
from mmbignas.search.samplers import DEFAULT_SAMPLER, SAMPLERS
from mmbignas.search.storage import open_storage
from mmbignas.search.study import Proposal, SubnetStudy

__all__ = ['AccuracyPredictor', 'CoarseToFineSampler', 'Constraints', 'DEFAULT_SAMPLER', 'Encoding', 'Proposal',
           'RankCorrelation', 'SAMPLERS', 'SubnetStudy', 'open_storage']
