"""Tables in, checked and ordered: catalogue, interactions, splits, readers, the validation report and the synthetic shop."""

from genrec.data.catalogue import Catalogue
from genrec.data.hashing import table_hash
from genrec.data.interactions import Histories, Interactions, pad_histories
from genrec.data.readers import load_catalogue, load_interactions, read_table
from genrec.data.splits import Split, Targets, exclude_seen_by_default, global_time, leave_one_out, user_holdout
from genrec.data.synthetic import make_shop, write_shop
from genrec.data.validate import Problem, Report, validate

__all__ = [
    "Catalogue",
    "Histories",
    "Interactions",
    "Problem",
    "Report",
    "Split",
    "Targets",
    "exclude_seen_by_default",
    "global_time",
    "leave_one_out",
    "load_catalogue",
    "load_interactions",
    "make_shop",
    "pad_histories",
    "read_table",
    "table_hash",
    "user_holdout",
    "validate",
    "write_shop",
]
