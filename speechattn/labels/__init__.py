"""Phone intervals, frame labels, and the files that hold them."""
