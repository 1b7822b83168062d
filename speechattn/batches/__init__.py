"""Cuts to padded batches: sampling, chunks, augmentation."""
