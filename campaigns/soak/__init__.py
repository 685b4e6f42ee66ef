"""Profile calls on mixed models in one process, which leave nothing behind."""
