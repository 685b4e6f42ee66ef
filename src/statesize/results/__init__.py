"""What was measured, as labelled datasets, folders on disk and tables.

Read fields and datasets, then place and store, then summary and profiled.
"""
