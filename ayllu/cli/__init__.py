"""The commands: each thin, each imported only when called."""
