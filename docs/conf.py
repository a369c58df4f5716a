"""Settings of the documentation: MyST pages, the API from the docstrings, the theme furo. ``make docs`` builds it."""
import sys
import warnings
from pathlib import Path

DOCS = Path(__file__).resolve().parent
sys.path[:0] = [str(DOCS), str(DOCS.parent)]
warnings.filterwarnings('ignore')  # what the packages underneath say while they are imported

project = 'mmbignas'
author = 'the mmbignas maintainers'
copyright = f'2026, {author}'
release = version = (DOCS.parent / 'mmbignas' / 'version.py').read_text().split("'")[1]

extensions = ['myst_nb', 'sphinx.ext.autodoc', 'sphinx.ext.napoleon', 'api_pages']
exclude_patterns = ['_build', 'tutorials/custom_supernet']
suppress_warnings = ['config.cache']

myst_enable_extensions = ['colon_fence']
myst_heading_anchors = 3
nb_execution_mode = 'off'  # a test executes the notebook

napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_custom_sections = [('Returns', 'params_style')]
autodoc_member_order = 'bysource'
autodoc_typehints = 'signature'
autodoc_class_signature = 'mixed'

html_theme = 'furo'
html_title = f'mmbignas {release}'
html_copy_source = False
pygments_style = 'default'
highlight_language = 'none'  # of blocks without a language: output, mostly
html_static_path = ['_static']
html_css_files = ['wide.css']
