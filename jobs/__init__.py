"""The commands, `heliograph VERB` or `python -m jobs.VERB`: each parses, calls, answers."""
