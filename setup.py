"""Package ``mmbignas``. The other settings of the project, for its tools, are in ``pyproject.toml``."""

import re
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.editable_wheel import editable_wheel

ROOT = Path(__file__).parent
ONNX = ['onnx', 'onnxruntime', 'onnxscript']  # export to ONNX, latency with ONNX Runtime
SEARCH = ['optuna', 'plotly', 'scikit-learn']  # search, pages of results, predicted accuracy, rank correlations
DOCS = ['sphinx', 'myst-nb', 'furo', 'nbclient', 'ipykernel']  # make docs, and the test of the notebook


def read_version() -> str:
    """Return the version without importing the package, which would need torch."""
    text = (ROOT / 'mmbignas' / 'version.py').read_text()
    match = re.search(r"^__version__ = '(.+)'$", text, re.MULTILINE)
    if match is None:
        raise RuntimeError('mmbignas/version.py has no __version__')
    return match[1]


class EditableWheel(editable_wheel):
    """Editable install that also leaves ``mmbignas.egg-info`` in the repository.

    mim looks for the tools where the distribution's metadata lie. With the repository on PYTHONPATH it finds these.
    They have no list of files: onedl-mim would take the first of it, CHANGELOG.md, for the package.
    """

    def run(self) -> None:
        """Build the editable wheel, then the metadata."""
        super().run()
        self.reinitialize_command('egg_info', egg_base='.')
        self.run_command('egg_info')
        (ROOT / 'mmbignas.egg-info' / 'SOURCES.txt').unlink(missing_ok=True)


readme = ROOT / 'README.md'
setup(
    name='mmbignas',
    version=read_version(),
    description='BigNAS for MMEngine, MMDetection and MMPretrain: supernets, sandwich training and search',
    long_description=readme.read_text() if readme.exists() else '',
    long_description_content_type='text/markdown',
    license='Apache-2.0',
    license_files=['LICENSE'],
    python_requires='>=3.10',
    packages=find_packages(include=['mmbignas', 'mmbignas.*']),
    # mim looks for tools and configs here; in the repository these are links to the folders at the top.
    package_data={'mmbignas': ['analysis/*.js', '.mim/tools/*.py', '.mim/configs/**/*.py']},
    # No torch and no mm* package: pip would replace a CUDA build, or install over the OneDL forks, which bring the same
    # modules under other names. `import mmbignas` checks what is there.
    install_requires=['numpy'],
    extras_require={
        # seaborn: MMDetection's analyze_logs.py, which the tests run on the logs of exported networks.
        'dev': ['ruff', 'mypy', 'pytest', 'pytest-timeout', 'pytest-xdist', 'filelock', 'hypothesis', 'pre-commit',
                'seaborn', *ONNX, *SEARCH, *DOCS],
        'docs': [*DOCS, *ONNX, *SEARCH],  # the API pages import everything
        'onnx': ONNX,
        'search': SEARCH,
    },
    cmdclass={'editable_wheel': EditableWheel},
    zip_safe=False,
    classifiers=[
        'Development Status :: 4 - Beta',
        'Intended Audience :: Science/Research',
        'Operating System :: OS Independent',
        'Programming Language :: Python :: 3 :: Only',
        'Topic :: Scientific/Engineering :: Artificial Intelligence',
    ],
)
