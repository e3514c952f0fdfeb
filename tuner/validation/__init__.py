"""What a search of a space would train, without training: the object that `validate` prints.

Main names: `Explanation`, `explain`, `search_lines`, `device_remarks`.
"""
