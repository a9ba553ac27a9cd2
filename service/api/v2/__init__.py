"""The Open Inference Protocol (v2), which Triton's and KServe's clients speak, over HTTP and gRPC.

    tensors.py    tensors of the protocol -> columns of values, and arrays -> raw bytes
    inference.py  the tensors of one request -> one run of the scorer -> arrays
    codec.py      bodies of HTTP: JSON, and JSON followed by raw tensors
    metadata.py   what is said about the server and the model
    http.py       the paths
    messages.py   the protobuf messages of gRPC, as a table
    rpc.py        the gRPC server; imported only where one is asked for

Knows the scorer and the limits. Does not know how a body is received, nor any format of /v1.
"""
