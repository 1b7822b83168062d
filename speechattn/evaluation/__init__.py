"""How good a model or an alignment is."""
