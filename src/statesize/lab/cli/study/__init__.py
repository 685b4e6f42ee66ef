"""The commands of `statesize study`."""
