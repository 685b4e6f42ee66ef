"""Figure 2 of zoology: recall at several widths and lengths."""
