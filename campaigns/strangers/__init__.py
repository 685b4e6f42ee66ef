"""Files that a stranger may have written, and signals at any moment: one line each, no traceback, no hang."""
