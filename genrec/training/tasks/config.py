"""Settings of the tasks that a language model learns from: how much of each, and which columns they read."""

import math
from dataclasses import dataclass, fields

from genrec.errors import SettingError, check_integer

# Tasks that read a column of the interactions table, which must be named: task -> the setting that names it.
NEED_A_COLUMN = {"rating": "rating_column", "explanation": "review_column", "behaviour": "behaviour_column"}


@dataclass(frozen=True)
class TasksConfig:
    """next_item: weight of plain histories, every code of which is learned, as at serving time. prompted_next_item: a history
    of codes in a sentence, then the next item's codes; this weight and those below are examples for each one of next_item, and
    0 is none. text_to_codes: an item's title or description, then its codes. codes_to_text: the other way round.
    codes_to_title: a history of codes, then the next item's title. titles_to_codes: a history of titles, then the next item's
    codes. search: a query, with a history or alone, then codes. attribute: a history and the brand or category that is wanted,
    then codes. preference: a history of codes, then the categories and brands that prevail in it. yes_no: a history and an
    item, then whether it was taken. rating: a history and its next item, then the user's rating. explanation: the same, then
    what the user wrote. behaviour: what was done to each item of a history and what is done next, then codes.
    recommendation_turn: what a user says they had, or a dialogue so far, then codes. critique: an item that was shown and what
    is wanted instead, then codes. clarifying_question: a history and a vague wish, then the question which of its categories is
    meant. reason: a history, an item and "why?", then what it shares with the latest item. chit_chat: a greeting, or a dialogue
    that leads to no item, then a short answer.
    query_column: column of the interactions with what was searched for; None makes queries of brand and category.
    rating_column: with ratings. review_column: with texts of users. behaviour_column: with what was done, such as "viewed".
    dialogues: table of training dialogues (columns context, response, item_ids) for recommendation_turn and chit_chat.
    text_tokens: tokens of one text at most; what is longer is cut.
    """

    next_item: float = 1.0
    prompted_next_item: float = 0.0
    text_to_codes: float = 0.0
    codes_to_text: float = 0.0
    codes_to_title: float = 0.0
    titles_to_codes: float = 0.0
    search: float = 0.0
    attribute: float = 0.0
    preference: float = 0.0
    yes_no: float = 0.0
    rating: float = 0.0
    explanation: float = 0.0
    behaviour: float = 0.0
    recommendation_turn: float = 0.0
    critique: float = 0.0
    clarifying_question: float = 0.0
    reason: float = 0.0
    chit_chat: float = 0.0
    query_column: str | None = None
    rating_column: str | None = None
    review_column: str | None = None
    behaviour_column: str | None = None
    dialogues: str | None = None
    text_tokens: int = 64

    def __post_init__(self) -> None:
        for name, weight in self._weights().items():
            if not (math.isfinite(weight) and weight >= 0):
                raise SettingError(f"tasks.{name} must be 0 or more, got {weight}.")
        if not self.next_item:
            raise SettingError(
                f"tasks.next_item must be above 0, got {self.next_item}: serving asks for the item after a plain history. The "
                "other weights are counted against it."
            )
        check_integer("tasks.text_tokens", self.text_tokens, 4)
        for task, column in NEED_A_COLUMN.items():
            if getattr(self, task) and getattr(self, column) is None:
                raise SettingError(f"tasks.{task} reads a column of the interactions table. Name it in tasks.{column}.")
            if getattr(self, column) is not None and not getattr(self, task):
                raise SettingError(f"tasks.{column} is for tasks.{task}, whose weight is 0. Give it one, or leave it out.")
        if self.query_column is not None and not self.search:
            raise SettingError("tasks.query_column is for tasks.search, whose weight is 0. Give it one, or leave it out.")
        if self.dialogues is not None and not (self.recommendation_turn or self.chit_chat):
            raise SettingError(
                "tasks.dialogues is for tasks.recommendation_turn and tasks.chit_chat, whose weights are 0. Give one of them a "
                "weight, or leave it out."
            )

    def _weights(self) -> dict[str, float]:
        return {field.name: getattr(self, field.name) for field in fields(self) if field.type is float}

    @property
    def aligned(self) -> dict[str, float]:
        """The tasks beside next_item and how many examples each has for one of next_item's; empty where there are none."""
        weights = self._weights()
        return {name: weight / self.next_item for name, weight in weights.items() if weight and name != "next_item"}

    @property
    def columns(self) -> dict[str, str]:
        """What is read of the interactions table besides the usual: place in a prompt -> column."""
        named = {
            "query": self.query_column,
            "rating": self.rating_column,
            "review": self.review_column,
            "behaviour": self.behaviour_column,
        }
        return {place: column for place, column in named.items() if column is not None}
