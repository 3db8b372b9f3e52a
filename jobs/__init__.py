"""The commands, `heliograph VERB` or `python -m heliograph.jobs.VERB`: each parses, calls, and
answers."""
