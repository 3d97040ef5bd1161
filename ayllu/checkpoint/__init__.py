"""One file for each weight format, each reading and writing lazily, tensor by tensor."""
