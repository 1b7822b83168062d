"""Predict the phones of recordings and live audio, and write them to files."""
