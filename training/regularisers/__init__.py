"""What is added to the loss for the sake of the weights: each regulariser in a file of its own, listed in `registry`.

Knows weights of architectures. Does not know rows or losses.
"""
