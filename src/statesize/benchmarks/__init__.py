"""Benchmarks that anybody can repeat: `statesize bench`."""
