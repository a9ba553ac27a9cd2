"""In which order training visits tasks and layers: each schedule in a file of its own, listed in `registry`.

Knows epochs. Does not know steps, losses or networks' insides.
"""
