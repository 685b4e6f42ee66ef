"""ESS of models at the delimiters of a text: read documents first, then dips, and reading, which does runs."""
