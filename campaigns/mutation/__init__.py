"""Changes of the numerics, one at a time, that the tests must notice."""
