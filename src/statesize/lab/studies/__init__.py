"""Studies: a question about effective state-size, its runs and its conclusion, a file each.

Read statistics and verdicts first, then the rooms engine (what all share) and texts (what delimiters and recall share),
then any study.
"""
