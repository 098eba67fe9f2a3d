"""Footage: finding videos, choosing frames, decoding them."""
