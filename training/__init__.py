"""Offline training: an impression log in, a published bundle out.

The only room that knows an optimiser. Knows the contract and the models; does not know the service.
"""
