"""Kernels in C++ for training on a CPU with AMX and for the engine, compiled when first used; each has a slow twin."""
