"""The site made of these pages: `make docs` writes it to build/site."""

project = "Keras and Lightning"
extensions = ["myst_parser"]
root_doc = "docs/contents"
include_patterns = ["docs/*.md", "docs/contents.rst", "CHANGELOG.md", "benchmarks/NOTES.md"]
include_patterns += ["examples/*/README.md", "parity/reports/*/*.md", "benchmarks/reports/*/*.md"]
myst_heading_anchors = 4
html_theme = "furo"
html_title = "Keras and Lightning"
nitpicky = True
suppress_warnings = ["toc.not_included", "myst.header"]  # reports are reached by links
