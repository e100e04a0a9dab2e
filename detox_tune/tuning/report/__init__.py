"""The page about a run, and the outputs that it shows."""
