"""Commands of the laboratory, under the names that they have at the command line."""
