"""What several commands share: options, what a model reads, and what is printed."""
