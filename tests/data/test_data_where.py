"""`where` expressions: what they keep, what they refuse, and that nothing in them is ever run."""

import datetime

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from genrec.data.where import where_mask
from genrec.errors import SettingError

TABLE = pa.table(
    {
        "price": [5.0, 20.0, None, float("nan"), 50.0],
        "stock": pa.array([3, 0, 7, None, 1], pa.int64()),
        "brand": ["Acme", "Zenith", None, "acme", "Acme"],
        "categories": pa.array([["Skin", "Care"], ["Hair"], [], None, ["Skin"]], pa.list_(pa.string())),
        "title": ["Day serum", "Shampoo", "Night Serum", None, "Soap"],
        "new": [True, False, None, True, False],
        "list price": [6.0, 20.0, 8.0, 9.0, 90.0],
        "since": pa.array([datetime.date(2024, month, 1) for month in range(1, 6)], pa.date32()),
        "and_more": ["a", "b", "c", "d", "e"],
        "nothing": pa.nulls(5),
    }
)


@pytest.mark.parametrize(
    ("expression", "rows"),
    [
        ("price < 20", [0]),
        ("price <= 20", [0, 1]),
        ("10 <= price <= 20", [1]),
        ("not (price < 20)", [1, 4]),
        ("price is None", [2, 3]),
        ("price is not None and price > 10", [1, 4]),
        ('brand == "Acme"', [0, 4]),
        ('brand != "Acme"', [1, 3]),
        ('not brand == "Acme"', [1, 3]),
        ('brand in ["Acme", "Zenith"]', [0, 1, 4]),
        ('brand not in ["Acme"]', [1, 3]),
        ("brand is None", [2]),
        ('"Skin" in categories', [0, 4]),
        ('"Skin" not in categories', [1, 2]),
        ('"erum" in title', [0, 2]),
        ('contains(title, "serum")', [0, 2]),
        ('not contains(title, "SERUM")', [1, 4]),
        ('contains(categories, "KIN")', [0, 4]),
        ('not contains(categories, "kin")', [1, 2]),
        ("new", [0, 3]),
        ("not new", [1, 4]),
        ("new == True", [0, 3]),
        ("stock > 0 and (price < 10 or price > 40)", [0, 4]),
        ("stock > 0 or price < 30", [0, 1, 2, 4]),
        ("`list price` * 0.5 < price", [0, 1, 4]),
        ("`list price` - price > 0", [0, 4]),
        ("price / stock > 10", [1, 4]),
        ("-price < -19", [1, 4]),
        ('since >= "2024-03-01"', [2, 3, 4]),
        ('since in ["2024-03-01", "2024-05-01"]', [2, 4]),
        ('nothing == "a"', []),
        ('nothing in ["a"]', []),
        ("nothing is None", [0, 1, 2, 3, 4]),
        ("stock in [3, 7]", [0, 2]),
        ("stock in [3.0]", [0]),
        ("price in [5, 50]", [0, 4]),
        ("brand in []", []),
        ("True", [0, 1, 2, 3, 4]),
        ('and_more == "`brand`"', []),
        ("price < 20 # cheap ones", [0]),
    ],
)
def test_an_expression_keeps_the_rows_it_says(expression: str, rows: list[int]) -> None:
    texts: dict = {}
    for encoded in (None, texts, texts):
        assert np.flatnonzero(where_mask(TABLE, expression, encoded)).tolist() == rows


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        ("", "where must be an expression over catalogue columns, got ''"),
        (None, "got None"),
        ("price <", "cannot be read"),
        ("price = 5", "Equal is written =="),
        ("pric < 5", "no column 'pric'. Did you mean 'price'"),
        ("price", "must be true or false for every item, got double"),
        ("price < 'cheap'", "does not fit"),
        ("brand < 5", "does not fit"),
        ("brand and new", "is string, not true or false"),
        ("price == None", "write `is None`"),
        ("price is 5", "`is` goes with None only"),
        ('categories == "Skin"', 'write "value" in column'),
        ('"Skin" in stock', "neither lists nor text"),
        ('price in ["a"]', "text is written in quotes, numbers are not"),
        ("brand in [5]", "text is written in quotes, numbers are not"),
        ("price in stock", "`in` takes a column"),
        ("price in [price]", "a list after `in` takes numbers and texts, not columns"),
        (r'brand == "\ud800"', "half a character"),
        ("stock * 9223372036854775807 < 0", "overflow"),
        ("__import__('os').system('true')", "is not allowed"),
        ("brand.upper() == 'A'", "is not allowed"),
        ("[x for x in brand]", "is not allowed"),
        ("(lambda: 1)()", "is not allowed"),
        ("contains(title, brand)", "is not allowed"),
        ('contains(stock, "3")', "does not fit"),
        ("open('x')", "is not allowed"),
        ("price ** 2 < 5", "is not allowed"),
        ("f'{price}' == 'a'", "is not allowed"),
        ("price if new else stock", "is not allowed"),
        ("(y := price) < 5", "is not allowed"),
        ("b'x' == brand", "is not allowed"),
        (f"price < {10**400}", "too large a number"),
        ("not " * 60 + "new", "levels deep"),
        ("(" * 300 + "new" + ")" * 300, "where c"),
        ("new or " * 3000 + "new", "at most 10000 characters"),
    ],
)
def test_what_cannot_be_is_refused_with_a_reason(expression: object, message: str) -> None:
    for encoded in (None, {}):
        with pytest.raises(SettingError, match=message.replace("(", r"\(").replace("[", r"\[").replace("`", "`")):
            where_mask(TABLE, expression, encoded)


@given(st.text(max_size=40) | st.text(alphabet="price brand()[]<>=!'\"`andornt 0123456789.,+-*/", max_size=40))
def test_any_text_is_a_mask_or_a_reason(expression: str) -> None:
    try:
        assert where_mask(TABLE, expression).shape == (5,)
    except SettingError as error:
        assert "where" in str(error)  # noqa: PT017


def test_texts_of_few_values_are_kept_as_dictionaries_and_others_are_not() -> None:
    table = pa.table({"brand": ["a", "b", None] * 10, "title": [f"item {n}" for n in range(30)]})
    texts: dict = {}
    assert where_mask(table, 'brand != "a" and title == "item 1"', texts).sum() == 1
    assert texts["brand"].dictionary.to_pylist() == ["a", "b"]
    assert texts["title"] is None
    assert where_mask(table, 'brand != "a" and title == "item 1"', texts).sum() == 1


def test_tables_of_no_rows_and_of_dictionaries_work() -> None:
    assert where_mask(TABLE.slice(0, 0), 'price < 5 and brand != "Acme"', {}).tolist() == []
    encoded = pa.table({"brand": TABLE.column("brand").dictionary_encode()})
    assert where_mask(encoded, 'brand == "Acme"').tolist() == [True, False, False, False, True]
