"""Configuration of the documentation's build: `make docs` writes build/docs/index.html, warnings being errors."""

import eo_keras

project = "EO-Keras"
author = "The EO-Keras authors"
release = version = eo_keras.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
source_suffix = {".md": "markdown"}
exclude_patterns = ["results"]

myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 3  # Links to headings work as they do on GitHub.

autodoc_mock_imports = ["tensorflow", "keras"]  # Importing them takes longer than all else.
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
python_maximum_signature_line_length = 100
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True
default_role = "code"  # Docstrings write names and values between single backquotes.

html_theme = "alabaster"
html_theme_options = {
    "description": "Land use and land cover from Sentinel-2 with TensorFlow and Keras 3",
    "fixed_sidebar": True,
    "page_width": "1100px",
}
html_show_sourcelink = False
html_show_copyright = False
