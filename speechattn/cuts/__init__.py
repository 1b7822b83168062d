"""Lhotse cuts with phones and speakers: writing, reading with checks, splits, shards."""
