"""What all studies share: grid → runs → verdict → page.

Read study first, then settings and grid (what is asked), training and students (a run), run (all runs, their table and
the page), final (the table that studies read), conclusion and charts (what they say), and record (what is kept).
"""
