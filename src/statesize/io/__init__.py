"""Files, recipes, progress, text for terminals, and the machine."""
