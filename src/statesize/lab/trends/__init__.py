"""ESS through the checkpoints of a training (`series`), and against the length of the context (`length`).

`trend` measures a profile at each point and is what both return, `checkpoints` finds models, `growth` fits exponents.
"""
