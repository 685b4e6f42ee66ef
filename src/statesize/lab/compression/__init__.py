"""Smaller states of the models that are trained here. Read `proposals`, `shrinking`, `trained`, `low_rank`."""
