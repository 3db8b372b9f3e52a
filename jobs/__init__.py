"""The commands: `heliograph VERB`, or `python -m jobs.VERB`. Each parses, calls pipeline, answers."""
