"""What each HTTP operation takes and answers, declared beside its handler and rendered as OpenAPI.

Declarations only: handlers read their requests themselves. A test compares the declarations with the routes of
the application, so that neither can be forgotten.
"""

from dataclasses import dataclass
from enum import Enum
from typing import Annotated, Any, Literal

import msgspec


class Access(Enum):
    """Whose request is carried out; the value says it to a reader."""

    ANYONE = "Needs no credentials."
    READER = "Needs a token or ticket with the grant, or a server key; nothing under `TIDINGS_AUTH=open`."
    SERVER = "Needs a server key or a token with `admin`; nothing under `TIDINGS_AUTH=open`."
    BEARER = "Needs a token."
    USER = (
        "Needs a token or ticket, and the grant; under `TIDINGS_AUTH=open` a `session` says which user it is."
    )


@dataclass(frozen=True, slots=True)
class Query:
    """One parameter of the query string, or one header. `type` is what its text must mean."""

    name: str
    type: Any
    meaning: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """One method of one path. `answer` is the type of a successful answer's body, None where it has none.

    `other_answers` are those that parameters of the query ask for instead.

    `path` is written as OpenAPI does, without the router's converters.
    """

    method: Literal["GET", "POST", "PUT", "DELETE"]
    path: str
    name: str
    summary: str
    access: Access
    answer: Any = None
    other_answers: tuple[Any, ...] = ()
    status: int = 200
    media_type: str = "application/json"
    body: Any = None
    body_required: bool = True
    query: tuple[Query, ...] = ()
    headers: tuple[Query, ...] = ()


def between(low: int, high: int) -> Any:
    """Return the type of an integer from `low` to `high`, both included."""
    return Annotated[int, msgspec.Meta(ge=low, le=high)]
