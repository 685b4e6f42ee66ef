"""Studies: a question about effective state-size, its runs and its conclusion, a file each.

Read `engine.study` first, then any study; `texts` is what delimiters and recall share. A study is a class in a file of
its own under `@study("name")`.
"""

from statesize.lab.studies.engine.study import Study, study

__all__ = ["Study", "study"]
__dir__ = __all__.copy
