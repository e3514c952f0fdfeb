"""Deletes searches, and files that no search needs.

Main names: `plan_deletion`, `delete_search`, `find_leftovers`, `clean`.
"""
