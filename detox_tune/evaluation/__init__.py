"""Decoding, collapse labels and scores."""
