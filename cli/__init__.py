"""The `fullfunnel` command: one thin module per verb, imported only when it is called.

Knows every room of the project. Nothing knows it.
"""
