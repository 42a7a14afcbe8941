"""The command line: what ./task calls."""
