"""Package ``mmbignas``. The other settings of the project, for its tools, are in ``pyproject.toml``."""

import re
import shutil
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.editable_wheel import editable_wheel

ROOT = Path(__file__).resolve().parent
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
    """Editable install that mim finds: its metadata say that the package lies in this folder.

    mim joins the folder of the metadata, which is ``site-packages``, with the first line of ``top_level.txt``, and
    looks for ``.mim/tools`` and ``.mim/configs`` there. So the first line is an absolute path, which leaves nothing of
    the join. (onedl-mim goes by the ``direct_url.json`` that pip writes.)
    """

    def run(self) -> None:
        """Write the metadata, unless pip had them written before, and build the wheel."""
        # Left by a build of an sdist. With this folder on the path it would be found first, and onedl-mim would take
        # the first of its list of files, CHANGELOG.md, for the package.
        shutil.rmtree(ROOT / 'mmbignas.egg-info', ignore_errors=True)
        if self.dist_info_dir is None:
            self.reinitialize_command('dist_info', output_dir=str(self.dist_dir))
            self.run_command('dist_info')
            self.dist_info_dir = self.get_finalized_command('dist_info').dist_info_dir
        (Path(self.dist_info_dir) / 'top_level.txt').write_text(f'{ROOT / "mmbignas"}\nmmbignas\n')
        super().run()


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
    package_data={'mmbignas': ['py.typed', 'analysis/*.js', '.mim/tools/*.py', '.mim/configs/**/*.py']},
    # No torch and no mm* package: pip would replace a CUDA build, or install over the OneDL forks, which bring the same
    # modules under other names. `import mmbignas` checks what is there.
    install_requires=['numpy'],
    extras_require={
        # psycopg: the tests with a PostgreSQL server.
        # seaborn: MMDetection's analyze_logs.py, which the tests run on the logs of exported networks.
        'dev': ['ruff', 'mypy', 'pytest', 'pytest-timeout', 'pytest-xdist', 'filelock', 'hypothesis', 'pre-commit',
                'psycopg[binary]', 'seaborn', *ONNX, *SEARCH, *DOCS],
        'docs': [*DOCS, *ONNX, *SEARCH],  # the API pages import everything
        'onnx': ONNX,
        'search': SEARCH,
    },
    cmdclass={'editable_wheel': EditableWheel},
    zip_safe=False,
    classifiers=[
        'Development Status :: 4 - Beta',
        'Intended Audience :: Science/Research',
        'Operating System :: POSIX :: Linux',
        'Programming Language :: Python :: 3.10',
        'Programming Language :: Python :: 3.11',
        'Programming Language :: Python :: 3.12',
        'Programming Language :: Python :: 3.13',
        'Programming Language :: Python :: 3 :: Only',
        'Topic :: Scientific/Engineering :: Artificial Intelligence',
    ],
)
