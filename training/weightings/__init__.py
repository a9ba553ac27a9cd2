"""How the tasks' losses become one step: each weighting in a file of its own, all listed in `registry`.

Knows losses and gradients. Does not know how a task's loss comes about.
"""
