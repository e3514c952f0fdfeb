"""Deletes searches, and files that no search needs; finds what leaves a home unprotected.

Main names: `plan_deletion`, `delete_search`, `find_leftovers`, `clean`, `find_weaknesses`.
"""
