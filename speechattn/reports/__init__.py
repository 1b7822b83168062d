"""Evaluations, comparisons, inspections and ablations as page, table and picture."""
