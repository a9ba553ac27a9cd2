"""Tables in, tables with scores out, through the one scorer. Nothing lives here yet.

May know service/scoring. Will not know HTTP or torch.
"""
