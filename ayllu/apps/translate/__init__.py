"""Translation of texts, pages and files: only the words change, and what failed is said."""
