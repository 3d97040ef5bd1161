"""Questions answered from the documents of a collection, with citations that are checked."""
