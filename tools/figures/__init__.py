"""The figures that the pages of the documentation show, made from the records beside the pages. Read `pages`."""
