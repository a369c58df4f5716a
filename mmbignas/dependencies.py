"""Check that the packages this one builds on are there, unbroken, and of versions that fit.

They are not in ``install_requires``: pip would install MMEngine, MMCV and MMDetection over the OneDL forks, which bring
modules of the same names. So every package is judged by importing it and by its ``__version__``.
"""

import re
import warnings
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from .errors import DependencyError

__all__ = ['check_dependencies', 'require', 'require_mmpretrain']


@dataclass(frozen=True)
class Requirement:
    """A package and the half-open range of versions that fits.

    Args:
        name: The name it is imported by.
        minimum: The first version that fits.
        below: The first version that does not fit any more.
        probe: A module of it that only imports where its compiled part works.
    """

    name: str
    minimum: str
    below: str
    probe: str = ''

    def __str__(self) -> str:
        return f'{self.name} >= {self.minimum}, < {self.below}'

    def problem(self) -> str:
        """Import the package; return what is wrong with it, or an empty string."""
        try:
            version = getattr(import_module(self.name), '__version__', None)
            if version is not None and not _release(self.minimum) <= _release(version) < _release(self.below):
                return f'{self.name} {version} does not fit'
            if self.probe:
                import_module(self.probe)
        except ModuleNotFoundError as error:
            if error.name == self.name:
                return f'{self.name} is not installed'
            return f'{self.name} cannot be imported: {error}{_HINTS.get(error.name or "", "")}'
        except Exception as error:  # a broken binary raises OSError, RuntimeError, AttributeError, ...
            return f'{self.name} cannot be imported: {str(error) or type(error).__name__}'
        return ''


# In the order in which they import each other.
REQUIRED = (
    Requirement('torch', '2.1', '3'),
    Requirement('mmengine', '0.10', '1'),
    Requirement('mmcv', '2.0', '2.4', probe='mmcv.ops'),
    Requirement('pycocotools', '2.0.6', '3', probe='pycocotools.mask'),
    Requirement('mmdet', '3.2', '4'),
)
MMPRETRAIN = Requirement('mmpretrain', '1.1', '2')

_HINTS = {
    'mmcv._ext': ' (this MMCV has no compiled operators: install mmcv, not mmcv-lite, built for this torch)',
    'pkg_resources': ' (setuptools 82 removed it: pip install "setuptools<82")',
}
_TORCHVISION_HINT = (
    'MMDetection imports MMPretrain, and that imports torchvision: install the torchvision that matches this torch, or '
    'none (beside a CPU build of torch: pip install requests; pip install --no-deps torchvision==0.16.2)'
)


def check_dependencies() -> None:
    """Import what this package needs and check the versions.

    MMPretrain is optional, but MMDetection imports it where it is installed, and dies where MMPretrain's torchvision is
    broken. So both are checked if they are there.

    Raises:
        DependencyError: Names each package that is missing, broken or of a version that does not fit, and the versions
            that fit.
    """
    problems: list[str] = []
    for requirement in REQUIRED:
        problem = requirement.problem()
        # What cannot be imported after something else was found wrong may be right in itself.
        if problem and not (problems and 'cannot be imported' in problem):
            problems.append(problem)
    if not problems and installed('mmpretrain'):
        problems = [problem for problem in (_torchvision_problem(), MMPRETRAIN.problem()) if problem]
    if problems:
        raise DependencyError(_message('mmbignas', problems, (*REQUIRED, MMPRETRAIN)))


def require_mmpretrain(purpose: str) -> None:
    """Check that MMPretrain can be used, for the parts that cannot do without.

    Args:
        purpose: What needs it, for the message.

    Raises:
        DependencyError: MMPretrain or torchvision, which its models import, is missing or does not fit.
    """
    problem = _torchvision_problem() or MMPRETRAIN.problem()
    if not problem and not installed('torchvision'):
        problem = f'torchvision is not installed. {_TORCHVISION_HINT}'
    if problem:
        raise DependencyError(_message(purpose, [problem], (MMPRETRAIN,)))


def require(package: str, purpose: str, install: str) -> Any:
    """Import a package that only some parts need.

    Args:
        package: Its name, or that of a module in it.
        purpose: What needs it, for the message.
        install: What pip is to install where it is missing.

    Raises:
        DependencyError: It cannot be imported.
    """
    try:
        return import_module(package)
    except ImportError as error:
        raise DependencyError(f'{purpose} needs {package}, which cannot be imported ({error}): '
                              f"pip install '{install}'") from None


def _torchvision_problem() -> str:
    """Return what is wrong with the installed torchvision; nothing is wrong where there is none."""
    if not installed('torchvision'):
        return ''
    try:
        with warnings.catch_warnings():
            # Without its image codecs, which nothing here uses, it warns at every start.
            warnings.filterwarnings('ignore', message='Failed to load image Python extension')
            import_module('torchvision')
    except Exception as error:  # beside a torch that it was not built for: RuntimeError, AttributeError, OSError, ...
        return f'torchvision cannot be imported: {error}. {_TORCHVISION_HINT}'
    return ''


def installed(name: str) -> bool:
    """Whether there is a package of this name."""
    return find_spec(name) is not None


def _release(version: str) -> tuple[int, ...]:
    """Return the numbers of a version, at most three: (2, 0, 0) for '2.0.0rc4', (2, 13, 0) for '2.13.0+cpu'."""
    return tuple(int(number) for number in re.findall(r'\d+', version)[:3])


def _message(subject: str, problems: list[str], fitting: tuple[Requirement, ...]) -> str:
    return f'{subject} cannot be used here: {"; ".join(problems)}. Versions that fit: {"; ".join(map(str, fitting))}.'
