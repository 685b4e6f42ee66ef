"""Texts in, token ids out. Read `inputs`, then `documents` and `tokens`."""
