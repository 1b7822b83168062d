"""One run from a configuration to the best model."""
