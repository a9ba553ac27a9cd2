"""How fast Fullfunnel answers over HTTP, beside other model servers and beside its own engine.

`python -m benchmarks.serving` starts one server after another, checks its answers, drives it from a process of its
own, and prints one table for each graph. The modules of `peers/` run in the environments of the other servers.
"""
