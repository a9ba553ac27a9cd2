"""HTTP in front of the scorer.

    settings.py    what can be set, and the limits
    wire.py        bytes -> requests: columns of raw values
    ranking.py     requests -> scores -> answers, in one run of the model
    problems.py    every error as an RFC 9457 problem: one table
    receiving.py   a body, no larger and in no more pieces than allowed
    lifecycle.py   which scorer answers, whether the service is ready, and how much it takes on at once
    predictions.py one prediction: admitted, read, scored and answered, whatever the protocol
    routes.py      the paths of /v1, facts and health
    v2/            the Open Inference Protocol, over HTTP and gRPC
    describe.py    OpenAPI, with examples made from the model's golden rows
    edge.py        what is done to every request and response
    app.py         these put together
    protocol.py    HTTP/1.1 with bounded heads, bodies and patience
    server.py      one process: listen, serve, drain

Knows HTTP and service/scoring. Does not know torch, features' meaning, or how a model is trained.
"""
