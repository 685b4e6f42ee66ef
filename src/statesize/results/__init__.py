"""What was measured, as labelled datasets, folders on disk and tables.

Read fields and datasets, then store with checked and arrays, then summary.
"""
