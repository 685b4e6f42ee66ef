"""What studies conclude and how it is shown: statistics, conclusions, charts and the page."""
