"""What ESS says of published models. Read attention, then heads and delimiters."""
