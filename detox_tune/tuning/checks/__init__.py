"""Checks of a search before it runs: rows of pass, warn or fail, each with its remedy."""
