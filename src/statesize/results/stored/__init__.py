"""Measurements as records, labelled datasets, and folders on disk."""
