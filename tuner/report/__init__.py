"""Pictures, and pages of them: the report of a search as one HTML file.

Main names: `write_report`, `write_pictures`, `figures_of`.

progress.py, curves.py, confirmed.py, shares.py, parallel.py, slices.py and scale/ have one picture
or a few each: its numbers, its caption, and its drawing by Plotly. They share the look and the axes
of picture.py and palette.py, and the numbers of series.py (a search) and axes.py (its parameters).
contents.py makes texts and tables, page.py assembles pages from templates.py, write.py writes them.
learning_rates.py draws a search space.
"""

from tuner.report.write import figures_of, write_pictures, write_report

__all__ = ["figures_of", "write_pictures", "write_report"]
