"""What a search of a space would train, without training: the object that `validate` prints.

`text_space` makes the space of a first search of somebody's own text, for `tuner init`.

Main names: `Explanation`, `explain`, `search_lines`, `device_remarks`, `text_space`.
"""
