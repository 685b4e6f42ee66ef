"""ESS through the checkpoints of a training (`series`), and against the length of the context (`length`).

Read `series` or `length` for what is measured, `points` for how each point is measured and kept, `changes` and `growth`
for what they return, `trend` for what both share, and `charts` for what their page draws; `checkpoints` finds models
and the log of their training.
"""
