"""Grids of training runs: what a run is, its settings and cost, tables of runs, and where they run."""
