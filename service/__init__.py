"""The scoring service: a verified bundle behind HTTP, files and jobs.

    scoring/    bundle -> onnxruntime session -> scores.            no HTTP, no files
    api/        HTTP, wire formats, limits, lifecycle.              no torch, ever
    batch/      tables -> scores -> tables.                         no torch, no HTTP

Knows the contract. Does not know how a model is trained; importing it never imports torch or onnx.
"""
