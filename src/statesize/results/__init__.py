"""What was measured, as labelled datasets, folders on disk and tables.

Read fields and datasets, then store and checked, then summary and profiled.
"""
