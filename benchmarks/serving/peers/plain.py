"""A service as most people write it: FastAPI, a pydantic model for each row, and a `def` route.

Run by `uvicorn benchmarks.serving.peers.plain:app --workers N`. The fields are taken from the graph, where a person
would type them.

Knows FastAPI. Does not know columns: rows come as objects, and leave as objects.
"""

from typing import Any

import numpy as np
from fastapi import FastAPI
from pydantic import BaseModel, create_model

from benchmarks.serving.peers.onnx_graph import ROW_USER, Graph

SINGLE: dict[str, Any] = {"tensor(string)": str, "tensor(int64)": int, "tensor(float)": float | None}
SEQUENCE: dict[str, Any] = {"tensor(string)": list[str], "tensor(int64)": list[int]}

graph = Graph()
app = FastAPI()


def fields(rows: str) -> dict[str, Any]:
    """Names and types of the inputs that have so many rows."""
    chosen = [port for port in graph.inputs if port.shape[0] == rows and port.name != ROW_USER]
    return {port.name: ((SEQUENCE if len(port.shape) == 2 else SINGLE)[port.type], ...) for port in chosen}


score_of: dict[str, Any] = dict.fromkeys(graph.outputs, (float, ...))
User: Any = create_model("User", **fields("users"))
Candidate: Any = create_model("Candidate", **fields("candidates"))
Prediction: Any = create_model("Prediction", **score_of)


class Request(BaseModel):
    """Rows to score; `user` where the graph takes the user once."""

    user: User | None = None
    candidates: list[Candidate]


@app.post("/predict", response_model=list[Prediction])
def predict(request: Request) -> Any:
    """One prediction for each candidate."""
    feeds = {
        name: np.array([getattr(row, name) for row in rows], graph.dtypes[name])
        for rows in ([request.user] if request.user else [], request.candidates)
        for name in (type(rows[0]).model_fields if rows else ())
    }
    scores = graph.run(feeds)
    return [
        Prediction(**dict(zip(scores, row, strict=True)))
        for row in zip(*(values.tolist() for values in scores.values()), strict=True)
    ]
