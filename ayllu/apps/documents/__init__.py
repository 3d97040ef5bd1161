"""Documents as people have them, read into text with pages: one file for each format."""
