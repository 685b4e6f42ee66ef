"""Charts as values (chart), of a measurement (measured), drawn by altair (vega) and by matplotlib (figures)."""
