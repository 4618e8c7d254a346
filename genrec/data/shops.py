"""Several shops as one pair of tables, for a model that is to know items of all of them (docs/one_pass.md).

In: shops by name, each a catalogue and its interactions. Out: an items table and an interactions table that `genrec fit` takes.

    from genrec.data.shops import join_shops
    fit(*join_shops({"beauty": (catalogue, interactions), "office": (other, others)}), "runs/shops", recipe)

Ids get the name of their shop in front, `beauty/B001`: shops number their items and people in ways of their own, so equal ids
are nobody's promise.
"""

from collections.abc import Mapping

import pyarrow as pa
import pyarrow.compute as pc

from genrec.columns import ITEM_ID, POSITION, TIMESTAMP, USER_ID
from genrec.data.catalogue import Catalogue, plain_column
from genrec.data.interactions import Interactions, as_numbers
from genrec.errors import DataError, SettingError


def join_shops(shops: Mapping[str, tuple[Catalogue, Interactions]]) -> tuple[pa.Table, pa.Table]:
    """(items, interactions) of all shops, one after the other.

    Items have the columns of any shop, empty where theirs lacks one. Interactions have `timestamp` and `position` where any
    shop has; both are numbers, a shop without them keeps its order of events. Raises `SettingError` for a name that would not
    keep ids apart, `DataError` for a column that holds text in one shop and numbers in another.
    """
    for name in shops:
        if not name or "/" in name:
            raise SettingError(f"A shop's name must be a text without '/', got {name!r}: it stands before its ids.")
    if not shops:
        raise SettingError("join_shops takes at least one shop, got none.")
    items = [_prefixed(_plain(catalogue.table), [ITEM_ID], name) for name, (catalogue, _) in shops.items()]
    events = [_prefixed(_numbers(interactions.table), [USER_ID, ITEM_ID], name) for name, (_, interactions) in shops.items()]
    return _joined(items, list(shops)), _joined(events, list(shops))


def _prefixed(table: pa.Table, columns: list[str], name: str) -> pa.Table:
    for column in columns:
        ids = pc.binary_join_element_wise(pa.scalar(name), table.column(column), "/")
        table = table.set_column(table.column_names.index(column), column, ids)
    return table


def _plain(items: pa.Table) -> pa.Table:
    return pa.table({name: plain_column(items.column(name)) for name in items.column_names})


def _numbers(events: pa.Table) -> pa.Table:
    """Ids, and the order of events as numbers, whatever they were."""
    columns = {name: events.column(name) for name in (USER_ID, ITEM_ID)}
    for name in (TIMESTAMP, POSITION):
        if name in events.column_names:
            columns[name] = pa.chunked_array([pa.array(as_numbers(events.column(name), name), from_pandas=True)])
    return pa.table(columns)


def _joined(tables: list[pa.Table], names: list[str]) -> pa.Table:
    for column in dict.fromkeys(name for table in tables for name in table.column_names):
        kinds = {
            shop: table.schema.field(column).type
            for shop, table in zip(names, tables, strict=True)
            if column in table.schema.names
        }
        try:
            pa.unify_schemas([pa.schema([(column, kind)]) for kind in kinds.values()], promote_options="permissive")
        except pa.ArrowException:
            told = ", ".join(f"{kind} in {shop!r}" for shop, kind in kinds.items())
            raise DataError(
                f"Column {column!r} must hold one kind of value in all shops, got {told}. Convert it, or drop it."
            ) from None
    return pa.concat_tables(tables, promote_options="permissive").combine_chunks()
