"""Download corpora: `fetch` gets and checks files, `transfer` copies bytes, `unpack` extracts archives."""
