"""How Sphinx builds these pages: ``nox -s docs``."""

import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(Path(__file__).parent / "_ext")]

import bpxp  # noqa: E402

project = "bpxp"
author = "The bpxp developers"
project_copyright = author
version = release = bpxp.__version__

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.viewcode",
    "numpydoc",
    "myst_parser",
    "sphinx-mathjax-offline",  # the pages can be read without a network
    "equations",
]
exclude_patterns = ["_build"]

myst_enable_extensions = ["amsmath", "dollarmath", "deflist"]
myst_heading_anchors = 3
myst_dmath_double_inline = True

autosummary_generate = True
autodoc_typehints = "none"  # numpydoc says the types, in words
autodoc_default_options = {"member-order": "bysource"}
numpydoc_show_class_members = False
numpydoc_xref_param_type = False
default_role = "autolink"
templates_path = ["_templates"]

html_theme = "pydata_sphinx_theme"
html_title = "bpxp"
html_static_path = ["_static"]
html_css_files = ["bpxp.css"]
html_show_sourcelink = False
html_sidebars = {page.stem: [] for page in Path(__file__).parent.glob("*.md")}  # a page of its own has no section
html_theme_options = {
    "header_links_before_dropdown": 5,
    "show_prev_next": True,
    "navigation_with_keys": False,
    "secondary_sidebar_items": ["page-toc"],
    "footer_start": ["copyright"],
    "footer_end": [],
    "show_toc_level": 2,
}
