"""Files, progress, text for terminals, and the machine."""
