"""Sources of text: files, tables, the hub and the standard library, read as streams of documents.

Main names: `SOURCES`, `documents`, `fingerprint`. Memory does not grow with the data.
"""
