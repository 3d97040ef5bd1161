"""Bodies of requests and answers, one file for each API. Free of torch."""
