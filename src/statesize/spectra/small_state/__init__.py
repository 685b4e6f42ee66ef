"""Thousands of small real diagonal recurrences, such as the channels of a Mamba layer, several side by side."""
