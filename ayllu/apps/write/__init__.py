"""Writing: from a brief to an outline, sections, checks, versions and files. Begin with compose.py."""
