"""What profiles say: side by side, in words, at the borders of documents, and against the whole network."""
