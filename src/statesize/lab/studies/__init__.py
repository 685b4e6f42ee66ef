"""Studies: a question about effective state-size, its measurements and its conclusion, a folder each.

Read study and catalogue first, then grid (training runs) and page (conclusions, charts, the page), then any study.
"""
