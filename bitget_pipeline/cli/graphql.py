"""
A question to Dagster's webserver. Apart from what asks it, because it needs nothing but the standard library.
"""

from __future__ import annotations

import json
from http.client import HTTPConnection, HTTPException
from typing import Any

from ..errors import PipelineError


class DagsterSilent(PipelineError):
    """Dagster's webserver does not answer as expected."""


def ask_graphql(host: str, port: int, query: str, *, timeout: float = 5.0, **variables: Any) -> dict[str, Any]:
    """The data of a GraphQL query, with its variables. Raises DagsterSilent."""
    connection = HTTPConnection(host, port, timeout=timeout)
    body = json.dumps({"query": query, "variables": variables})
    try:
        connection.request("POST", "/graphql", body, {"Content-Type": "application/json"})
        answer = json.load(connection.getresponse())
    except (OSError, HTTPException, ValueError) as error:
        raise DagsterSilent(f"no answer: {error or type(error).__name__}", where=f"{host}:{port}") from None
    finally:
        connection.close()
    if answer.get("errors"):
        message = str(answer["errors"][0].get("message") or "GraphQL error").splitlines()[0]
        raise DagsterSilent(message, where=f"{host}:{port}")
    return dict(answer.get("data") or {})
