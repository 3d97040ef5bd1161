"""Kernels in C++ for training on a CPU with AMX, compiled when they are first used; each has a slow twin in torch."""
