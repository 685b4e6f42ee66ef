"""The path of all studies: grid → runs → rows → verdict → page.

Read `study` first, then `grid` (what is asked), `training` (a run), `run` (all runs, their table and the
page), `table` (what studies read), `statistics`, `verdicts` and `charts` (what they say), and `record`
(what is kept).
"""
