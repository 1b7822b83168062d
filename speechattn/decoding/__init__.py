"""Frame scores to phones in time."""
