"""Values and foreign texts as people and terminals may see them.

Main names: `visible` and `in_one_line` show control characters, `masked` hides secrets, `shown`,
`listed`, `counted` and `number` format values, `prose` and `cell` make Markdown.
"""
