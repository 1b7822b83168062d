"""Score models and alignments."""
