"""Files, parts of runs, progress and text: what everything else writes and tells by."""
