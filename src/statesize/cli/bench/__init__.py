"""`statesize bench`: what the benchmarks share (running), and one command a file."""
