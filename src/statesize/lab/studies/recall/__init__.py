"""What language models recall, and how deep their delimiters dip."""
