"""Options that several commands have: their kinds, and what a model reads."""
