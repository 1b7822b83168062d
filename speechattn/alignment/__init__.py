"""Audio and words to phones with times."""
