"""What all studies share: grid → runs → verdict → page.

Read study first, then settings and grid (what is asked), training and students (a run), run (all runs, their table and
the page), final, conclusion and charts (what studies say), and record (what the repository keeps).
"""
