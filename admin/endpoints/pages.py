"""Parameters that lists have in common.

Pages go by key (`after`), never by number, so that nothing is skipped or doubled while lists grow.
"""

from typing import Annotated

from litestar.params import Parameter

from admin import answers

LIMIT_MAX = 500
NUMBER_MAX = 2**53

Limit = Annotated[int, Parameter(ge=1, le=LIMIT_MAX, description="How many to return at most.")]
Number = Annotated[int, Parameter(ge=1, le=NUMBER_MAX)]
AfterNumber = Annotated[int | None, Parameter(ge=1, le=NUMBER_MAX, description="Return what is older than this one.")]
Since = Annotated[int | None, Parameter(ge=0, le=NUMBER_MAX, description="Milliseconds since 1970.")]
Text = Annotated[str, Parameter(max_length=512)]
KeyId = Annotated[str, Parameter(pattern=r"^[A-Za-z0-9_.-]{1,64}$", description="The id of a key.")]
GroupId = Annotated[str, Parameter(pattern=r"^[A-Za-z0-9_.-]{1,64}$", description="The id of a pool group.")]
TextOrNone = Annotated[str | None, Parameter(max_length=512)]


def plain(name: str, text: str) -> str:
    """The text of a parameter. Refused if it has control characters, which no database has to take."""
    if not text.isprintable():
        raise answers.bad_request(f"{name}: found control characters, expected plain text")
    return text


def plain_or_none(name: str, text: str | None) -> str | None:
    return None if text is None else plain(name, text)
