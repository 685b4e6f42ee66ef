"""One operator, measured. Read `measurement` and `result`, then `metrics`, `settings` and `statistics`."""
