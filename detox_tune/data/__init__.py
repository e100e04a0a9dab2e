"""Pairs, lexicon, tokens and the embedded corpus."""
