"""The network: encoder, baselines, classifier, its stream, and where models are loaded from."""
