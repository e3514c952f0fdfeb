"""Where text comes from: files, tables, the hub, the standard library, as a stream of documents.

Main names: `SOURCES`, `documents`, `fingerprint`. Memory stays bounded, however large the
data.
"""
