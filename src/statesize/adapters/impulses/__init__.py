"""T of any layer: what it returns for impulses in the tensor in which it is linear.

Read `modules` (which modules mix positions), `lone_run` (one of them run alone, its tensors kept or replaced), `search`
(between which two tensors it is linear), `channels` (heads and channels) and `layer` (T).
"""
