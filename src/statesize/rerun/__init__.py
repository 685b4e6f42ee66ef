"""Repeating a result from what it says of itself, and comparing."""
