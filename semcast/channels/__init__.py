"""Channels: base.py defines what they share, catalogue.py lists them by name."""
