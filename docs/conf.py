"""Configuration of the documentation; `make docs` builds it without a network and with every warning an error."""

import os
import shutil
import tomllib
from pathlib import Path

HERE = Path(__file__).parent
PYPROJECT = tomllib.loads((HERE.parent / "pyproject.toml").read_text(encoding="utf-8"))["project"]

# Sphinx reads only what lies below docs/, and the tutorials live at the top, where people look for them.
TUTORIALS = HERE / "tutorials"
shutil.rmtree(TUTORIALS, ignore_errors=True)
TUTORIALS.mkdir()
for notebook in sorted((HERE.parent / "tutorials").glob("*.ipynb")):
    shutil.copy2(notebook, TUTORIALS)

project = PYPROJECT["name"]
author = copyright = PYPROJECT["authors"][0]["name"]
version = release = PYPROJECT["version"]

extensions = [
    "myst_nb",
    "numpydoc",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.mathjax",
    "sphinx.ext.viewcode",
    "sphinx_copybutton",
    "sphinxcontrib.bibtex",
]
templates_path = ["_templates"]
exclude_patterns = ["_build", "**.ipynb_checkpoints"]
root_doc = "index"
default_role = "literal"  # in docstrings `name` is code, as in Markdown

autosummary_generate = True
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
python_maximum_signature_line_length = 88
numpydoc_show_class_members = False
numpydoc_xref_param_type = False

bibtex_bibfiles = ["references.bib"]
bibtex_reference_style = "author_year"

nb_execution_mode = "off"  # `make tutorials` runs them, and what they printed is committed
myst_enable_extensions = ["amsmath", "colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3
copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True

# Links to other packages need their inventories, and so a network: they are made on the documentation server.
# Elsewhere their names are left unlinked, and only our own references must resolve.
if os.environ.get("READTHEDOCS"):
    extensions.append("sphinx.ext.intersphinx")
    intersphinx_mapping = {
        "anndata": ("https://anndata.readthedocs.io/en/stable/", None),
        "matplotlib": ("https://matplotlib.org/stable/", None),
        "mudata": ("https://mudata.readthedocs.io/stable/", None),
        "networkx": ("https://networkx.org/documentation/stable/", None),
        "numpy": ("https://numpy.org/doc/stable/", None),
        "pandas": ("https://pandas.pydata.org/docs/", None),
        "python": ("https://docs.python.org/3/", None),
        "scanpy": ("https://scanpy.readthedocs.io/en/stable/", None),
        "scipy": ("https://docs.scipy.org/doc/scipy/", None),
        "sklearn": ("https://scikit-learn.org/stable/", None),
    }
nitpicky = True
nitpick_ignore_regex = [
    ("py:.*", r"(?!sctrellis\b)[A-Za-z_]\w*(\..+)?"),  # other packages, and names written without their package
    ("py:attr", r"sctrellis\.settings\..*"),  # an instance; its page documents the class
    ("py:.*", r"sctrellis(\.\w+)*\._.*"),  # private types that show in a public signature
]

html_theme = "sphinx_book_theme"
html_title = "sctrellis"
html_theme_options = {
    "repository_url": PYPROJECT["urls"]["Source"],
    "repository_branch": "main",
    "path_to_docs": "docs",
    "use_repository_button": True,
    "use_issues_button": True,
    "use_download_button": False,
    "show_toc_level": 2,
}


def _name_defaults(app, what, name, obj, options, signature, returns):
    """Write defaults that are made anew as `...`: Sphinx cannot parse `<factory>`, and garbles the types beside it."""
    return (signature.replace("<factory>", "...") if signature else signature), returns


def setup(app):
    app.connect("autodoc-process-signature", _name_defaults)
