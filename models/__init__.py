"""Torch modules: embeddings, numeric encodings, architectures and the ranker that joins them.

Knows tensors. Does not know files, loops, losses or optimisers.
"""
