"""What trained models do with the delimiters of a text, for the studies of delimiters and of recall.

Read documents first, then sequences and responses (ESS around the same cuts), dips, and reading (the settings).
"""
