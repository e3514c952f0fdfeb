"""Report of a search: one HTML page, and its plots as PNGs for papers.

Main names: `write_report`, `write_pictures`.

series.py, axes.py, compute.py and shares.py compute the numbers; figures.py, matters.py and
parallel.py draw them for the page, pictures.py for papers; captions.py and contents.py make texts
and tables, page.py assembles the page, palette.py has the colours. learning_rates.py draws a search
space.
"""

from tuner.report.write import write_pictures, write_report

__all__ = ["write_pictures", "write_report"]
