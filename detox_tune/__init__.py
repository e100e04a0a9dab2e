"""Search for the fine-tuning that makes a small model really rewrite toxic sentences."""

__version__ = "0.1.0"
