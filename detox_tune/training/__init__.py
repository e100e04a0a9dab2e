"""Masking, losses and the trainer."""
