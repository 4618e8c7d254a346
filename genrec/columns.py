"""Every column name that genrec reads or writes, once.

A user's own names are mapped to these when a table is read (`columns={"user_id": "reviewerID", ...}`); from then on
only these are used.
"""

USER_ID = "user_id"
ITEM_ID = "item_id"
TIMESTAMP = "timestamp"  # any number or Arrow timestamp that sorts in time
POSITION = "position"  # optional: order inside a user, used where timestamps tie or are missing

HISTORY = "history"  # a list of item ids, oldest first (input of `recommend_df`)
RANK = "rank"  # 1 is best
SCORE = "score"  # log P(codes | history), natural logarithm

INTERACTION_COLUMNS = (USER_ID, ITEM_ID, TIMESTAMP, POSITION)
