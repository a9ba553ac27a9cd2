"""What the README's figures come from: one command each.

Knows everything it measures, through its public interface. Nothing in the product knows it.
"""
