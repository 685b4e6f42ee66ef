"""What was measured, as records, labelled datasets, folders on disk and tables."""
