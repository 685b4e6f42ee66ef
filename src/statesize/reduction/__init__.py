"""Smaller recurrences: what a layer's memory needs, and the recurrence that has just that."""
