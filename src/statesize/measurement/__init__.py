"""One operator, measured. Read `measurement`, then `metrics`; `charts` draws a measurement, by `chart` and `vega`."""
