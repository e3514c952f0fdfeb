"""Program that makes one measurement of tokenizer.py; its argument is a `Job` as JSON.

A module apart from `sides`, because its processes find the functions of `sides` by module name.
"""

from __future__ import annotations

import json
import sys

from parts.tokenizer.sides import Job, measure

if __name__ == "__main__":
    print(json.dumps(measure(Job(**json.loads(sys.argv[1])))))
