"""What commands print: results on stdout as tables or JSON, progress on stderr."""
