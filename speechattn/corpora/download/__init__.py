"""Fetch the archives of a corpus: catalogue, transfer, unpacking."""
