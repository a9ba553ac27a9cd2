"""How fast a log becomes a trained model: Fullfunnel, torch-rechub, and a loop over ready tensors.

`python -m benchmarks.training` makes the log, trains every system on it in a process of its own, one after
another, and prints one table. This package's modules import no more than they need, because one of them runs in
another environment than Fullfunnel's.
"""
