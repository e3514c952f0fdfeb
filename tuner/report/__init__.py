"""A search as one HTML page to read, and the same pictures as PNGs for papers.

The numbers are in `series`, `axes` and `shares`; `figures` and `parallel` draw them for the page,
`pictures` for papers; `captions` and `contents` word them; `page` assembles the page.
"""

from tuner.report.write import write_pictures, write_report

__all__ = ["write_pictures", "write_report"]
