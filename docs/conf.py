"""The manual: `make docs` builds it, with warnings as errors and without network."""

import os
import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parent / "_ext"), str(Path(__file__).parents[1])]
os.environ["PYTHONPATH"] = sys.path[1]  # of the tutorials' kernels

import reference  # noqa: E402

import ntkdecay  # noqa: E402

project = "ntkdecay"
author = copyright = "The ntkdecay authors"
release = ntkdecay.__version__

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.intersphinx",
    "mathml",
    "reference",
]
exclude_patterns = ["_build", "inventories"]
html_theme = "furo"
html_title = f"ntkdecay {release}"
html_static_path = ["_static"]
html_css_files = ["manual.css"]
html_copy_source = False

default_role = "py:obj"
autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
maximum_signature_line_length = 90
napoleon_use_ivar = True
napoleon_use_rtype = False
python_use_unqualified_type_names = True
intersphinx_mapping = reference.inventories()

myst_enable_extensions = ["dollarmath", "amsmath", "colon_fence"]
myst_heading_anchors = 3
nb_execution_mode = "force"
nb_execution_timeout = 150  # a tutorial takes less than a minute where nothing else runs
nb_execution_raise_on_error = True
nb_merge_streams = True
suppress_warnings = ["mystnb.unknown_mime_type"]
