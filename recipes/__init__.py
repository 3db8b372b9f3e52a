"""Recipes that come with the package; each file opens with its command, its time and its score."""
