"""One operator, measured. Read `measurement`, then `metrics`; `charts` draws what was found, by `chart` and `vega`."""
