"""Jobs that are interrupted, killed or damaged: finished parts are kept, and the end is the same."""
