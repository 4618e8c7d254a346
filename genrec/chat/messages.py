"""What a state remembers of the messages, for a speaker or a dialogue ranker: words and item ids by turns, as plain JSON.

In: messages of a user, answers to them. Out: lists of text: words, item id, words, item id ... words; the user's and the
assistant's by turns. Ids and not titles, so that an item stays an item however it is spelled.
"""

from collections.abc import Sequence

from genrec.chat.link import Link
from genrec.chat.mentions import Mentions
from genrec.chat.spelling import Parts, join, link_parts
from genrec.chat.words import printable, straight
from genrec.columns import ITEM_ID
from genrec.decoding.live import CatalogueVersion
from genrec.errors import SettingError

MOST_MESSAGES = 12  # kept: a speaker reads fewer
MOST_UNANSWERED = 10  # items kept of messages that were not answered

Messages = tuple[list[str], ...]


def check(told: object) -> None:
    """Raise `SettingError` unless these are lists of text: words, item id, words ... words."""
    right = isinstance(told, tuple) and all(
        isinstance(one, list) and len(one) % 2 == 1 and all(isinstance(part, str) for part in one) for one in told
    )
    if not right:
        raise SettingError(
            "This is no state of a conversation: messages must be a list of lists of text, each words, item id, words ... "
            f"words, got {printable(told)}. Begin anew with State(), or send back a state as it was given."
        )


def heard(messages: Messages, message: str, links: Sequence[Link], mentions: Mentions, version: CatalogueVersion) -> Messages:
    """The messages with one more of the user's, its items linked. Of one that was not answered, only what leads to its items
    stays: a speaker reads little of a text, and the newest words must be among it."""
    sure = [(straight(link.mention), link.item_id) for link in links if link.item_id is not None]
    rows = version.rows([item_id for _, item_id in sure]).tolist()
    named = [(mention, row) for (mention, _), row in zip(sure, rows, strict=True) if row >= 0]
    ids = version.table.column(ITEM_ID)
    parts = link_parts(straight(message), named, mentions)
    said = [part if isinstance(part, str) else str(ids[part].as_py()) for part in parts]
    earlier = messages[-MOST_MESSAGES:] if len(messages) % 2 == 0 else messages
    if len(earlier) % 2:
        return (*earlier[:-1], [*earlier[-1][:-1][-2 * MOST_UNANSWERED :], *said])
    return (*earlier, said)


def answered(messages: Messages, answer: Parts, item_ids: Sequence[str]) -> Messages:
    """The messages with an answer. item_ids: of its items, in order."""
    ids, kept = iter(item_ids), [""]
    for part in answer:
        if isinstance(part, str):
            kept[-1] = f"{kept[-1]} {part}".strip()
        else:
            kept += [next(ids), ""]
    return (*messages, kept)


def rows_in(message: Sequence[str], version: CatalogueVersion) -> Parts:
    """A message with rows in the place of ids; what the catalogue no longer has is left out."""
    found: list[str | int] = [message[0]]
    for row, words in zip(version.rows(message[1::2]).tolist(), message[2::2], strict=True):
        found = [*found, row, words] if row >= 0 else join(found, [words])
    return found


def text_of(message: Sequence[str], version: CatalogueVersion, title: str) -> str:
    """A message as text, with titles in the place of ids. title: the column that has them."""
    titles = version.table.column(title)
    parts = [part if isinstance(part, str) else str(titles[part].as_py() or "") for part in rows_in(message, version)]
    return " ".join(part.strip() for part in parts if part.strip())
