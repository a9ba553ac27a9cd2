"""What the trainer and the service agree on: features, tasks, the bundle, and errors.

Knows numpy and pydantic. Does not know torch, onnxruntime, HTTP, or how a model is trained or served.
"""
