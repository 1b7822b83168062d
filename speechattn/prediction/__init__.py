"""Recordings and live audio to phone segments and files."""
