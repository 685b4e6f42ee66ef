"""What a running model is watched by: modules that run, parts and functions that are observed, observations."""
