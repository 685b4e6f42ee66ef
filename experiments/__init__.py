"""Studies beyond the paper, each plugged in as a package of a user would: python -m experiments.rank --preset smoke."""
