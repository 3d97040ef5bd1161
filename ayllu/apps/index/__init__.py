"""What a collection is made of: words, chunks, reading in other processes, the SQLite file, vectors, ranking."""
