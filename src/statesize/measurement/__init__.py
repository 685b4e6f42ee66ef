"""One operator, measured. Read `measurement` and `result`, then `metrics`; `chart` and `vega` draw."""
