"""`python -m training RUN.toml` is `fullfunnel train RUN.toml`."""
