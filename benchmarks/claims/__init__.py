"""Claims about small models that were fixed before their runs. Read judged, then runs, then any other."""
