"""What was measured, as records, labelled datasets, folders on disk and tables.

Read fields and datasets, then store with checked and arrays, then summary.
"""
