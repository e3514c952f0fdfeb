"""The folder of the searches of a user, and what it holds.

Main names: `Home`, `check_name`, `private_folder`, `correct_locations`, `newer`.
"""
