"""The command line, ``espo-gym``."""
