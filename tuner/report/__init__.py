"""Report of a search: one HTML page, and its plots as PNGs for papers.

Main names: `write_report`, `write_pictures`.

Modules `series`, `axes` and `shares` compute the numbers. `figures`, `matters` and `parallel` draw
them for the page, `pictures` for papers. `captions` and `contents` make texts and tables, `page`
assembles the page, `palette` has the colours. `learning_rates` draws a search space.
"""

from tuner.report.write import write_pictures, write_report

__all__ = ["write_pictures", "write_report"]
