"""What goes over the wire: requests with their limits, answers, errors. FastAPI makes the OpenAPI page of it.

Field names and meanings are those of `genrec.recommender.Request`.
"""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

MOST_HISTORIES = 1_000
MOST_IN_QUERY = 200  # ids in a URL, which may have 64 KiB
MOST_ITEMS = 10_000  # of a history, of a list of ids, of a change to the catalogue

Id = Annotated[str, StringConstraints(min_length=1, max_length=512, pattern=r"^[^\x00]+$")]  # PostgreSQL has no NUL
Ids = Annotated[list[Id], Field(max_length=MOST_ITEMS)]
Where = Annotated[str, StringConstraints(min_length=1, max_length=10_000)]
Count = Annotated[int, Field(ge=1, le=4096)]


class Strict(BaseModel):
    """A misspelled field is an error, not a rule that is silently not applied; a number is not taken for a text."""

    model_config = ConfigDict(extra="forbid", strict=True)


class RecommendationsIn(Strict):
    model: str | None = Field(None, description="Which model; may be left out where there is one.", examples=[None])
    histories: Annotated[list[Ids], Field(min_length=1, max_length=MOST_HISTORIES)] | None = Field(
        None, description="Item ids per user, oldest first. An empty list is a new user.", examples=[[["B001", "B002"]]]
    )
    user_ids: Annotated[list[Id], Field(min_length=1, max_length=MOST_HISTORIES)] | None = Field(
        None, description="Users whose histories are the events sent before; instead of `histories`.", examples=[None]
    )
    k: Count | None = Field(None, description="Items per history.", examples=[10])
    beam_width: Count | Annotated[list[Count], Field(min_length=1, max_length=8)] | None = Field(None, examples=[50])
    exclude_seen: bool | None = Field(None, description="Leave out what is in the history.")
    where: Where | None = Field(None, description="A rule over catalogue columns.", examples=['price < 20 and brand != "Acme"'])
    exclude_item_ids: Ids = Field([], description="Never returned.")
    only_item_ids: Ids | None = Field(None, description="Nothing else is returned.", examples=[None])
    filters: Annotated[list[str], Field(max_length=20)] = Field([], description="Names of prepared filters.")
    max_per: dict[str, Count] | None = Field(None, description="At most so many of one value.", examples=[{"brand": 2}])
    max_per_prefix: dict[Annotated[str, StringConstraints(pattern="^[1-8]$")], Count] | None = Field(
        None, description="At most so many with the same first codes; the key is how many codes.", examples=[{"1": 3}]
    )
    unknown_items: Literal["raise", "ignore"] = Field("raise", description="What to do with ids that are not in the catalogue.")
    explain: bool = Field(False, description="Say why, at the cost of one more reading of the history per item in it.")
    fields: list[str] | None = Field(None, description="Columns to return (default: all).", examples=[["title"]])

    @model_validator(mode="after")
    def _one_of(self) -> "RecommendationsIn":
        if (self.histories is None) == (self.user_ids is None):
            raise ValueError("give either histories or user_ids")
        return self


class Item(BaseModel):
    item_id: str
    rank: int = Field(description="1 is best.")
    score: float = Field(description="log P(codes | history), natural logarithm, full softmax.")
    fields: dict[str, Any]
    explanation: dict[str, Any] | None = None


class Answer(BaseModel):
    user_id: str | None = None
    items: list[Item]


class VersionOut(BaseModel):
    number: int
    hash: str
    items: int = Field(description="Items that can be found.")
    about: str
    time: float = Field(description="Seconds since 1970.")


class RecommendationsOut(BaseModel):
    model: str
    bundle: str = Field(description="Names the weights and codes that answered.")
    catalogue: VersionOut
    answers: list[Answer]


class EventIn(Strict):
    user_id: Id
    item_id: Id
    timestamp: Annotated[float, Field(ge=0, le=4e9, allow_inf_nan=False)] | None = Field(
        None, description="Seconds since 1970 (default: now)."
    )
    event_id: Id | None = Field(None, description="Names the event, so that sending it twice counts once.")


class EventsIn(Strict):
    model: str | None = None
    events: Annotated[list[EventIn], Field(min_length=1, max_length=MOST_ITEMS)]
    unknown_items: Literal["raise", "ignore"] = "raise"


class EventsOut(BaseModel):
    new: int = Field(description="Events that were not there before.")


class ItemsIn(Strict):
    model: str | None = None
    items: Annotated[list[dict[str, Any]], Field(min_length=1, max_length=MOST_ITEMS)] = Field(
        description="Each with `item_id` and catalogue columns.", examples=[[{"item_id": "B900", "title": "Night cream"}]]
    )
    replace: bool = Field(False, description="The items are there already: give them these fields, keep the others.")


class RemoveIn(Strict):
    model: str | None = None
    item_ids: Annotated[list[Id], Field(min_length=1, max_length=MOST_ITEMS)]


class ItemsOut(BaseModel):
    items: list[dict[str, Any]]
    next: int | None = Field(None, description="Pass as `after` for more.")


class RollbackIn(Strict):
    model: str | None = None
    to: int


class ModelOut(BaseModel):
    name: str
    bundle: str = Field(description="Names its weights and codes.")
    architecture: str
    weights: int
    levels: list[int] = Field(description="Codes per level.")
    codes: str = Field(description="Hash of the code table.")
    k: int
    beam_width: int
    exclude_seen: bool
    filters: list[str]
    catalogue: VersionOut


class Problem(BaseModel):
    type: str = Field(examples=["UnknownItemError"])
    message: str


class ErrorOut(BaseModel):
    error: Problem
