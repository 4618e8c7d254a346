"""`where` expressions: which items a rule over catalogue attributes keeps.

In: a table and text such as `price < 20 and category == "Skin Care"`. Out: a bool mask over its rows. The text is parsed by
Python's grammar and computed by Arrow; nothing in it is ever run.

    price < 20                      10 <= price <= 20             brand != "Acme"
    brand in ["Acme", "Zenith"]     "Skin Care" in categories     not (stock == 0)
    brand is None                   contains(title, "serum")      `list price` * 0.9 < 20

`"x" in categories` asks a column of lists for the value, and text for the exact part of it; `contains` looks for a part of the
text, or of any text of the list, and ignores upper and lower case. A value that is missing satisfies no comparison and its
opposite neither: an item of unknown price is neither below 20 nor not below 20. Only `is None` and `is not None` see it.
"""

import ast
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from genrec.data.catalogue import is_text
from genrec.errors import SettingError, nearest

LONGEST = 10_000  # characters
DEEPEST = 50  # brackets and operators inside one another

_COMPARISONS: dict[type, Callable] = {
    ast.Eq: pc.equal, ast.NotEq: pc.not_equal, ast.Lt: pc.less,
    ast.LtE: pc.less_equal, ast.Gt: pc.greater, ast.GtE: pc.greater_equal,
}  # fmt: skip
_ARITHMETIC: dict[type, Callable] = {
    ast.Add: pc.add_checked, ast.Sub: pc.subtract_checked, ast.Mult: pc.multiply_checked, ast.Div: pc.divide,
}  # fmt: skip
_QUOTED = re.compile(r"""("(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*')|`([^`]+)`""")


def where_mask(table: pa.Table, expression: str, encoded: dict[str, pa.DictionaryArray | None] | None = None) -> np.ndarray:
    """Rows of `table` that satisfy `expression`: bool [rows]. Raises `SettingError` saying what is wrong with it.

    encoded: a dict to keep for the next expression over the same table. Text columns of few values are put there as
    dictionaries, so that later texts are compared once per value, not once per row.
    """
    try:
        tree, names = _parse(expression)
        result = _Evaluation(table, names, expression, encoded).of(tree, 0)
    except RecursionError:
        raise SettingError("where is nested too deeply. Write it with fewer parentheses and operators.") from None
    kind = result.type
    if not pa.types.is_boolean(kind):
        raise SettingError(f"where must be true or false for every item, got {kind} values from {expression!r}. {_EXAMPLE}")
    if isinstance(result, pa.Scalar):
        return np.full(table.num_rows, bool(result.as_py()))
    return pc.fill_null(result, False).to_numpy(zero_copy_only=False).astype(bool)


_EXAMPLE = 'Write, for example, price < 20 and brand == "Acme".'


def _parse(expression: str) -> tuple[ast.expr, dict[str, str]]:
    """The syntax tree, and which names stand for columns in backticks."""
    if not isinstance(expression, str) or not expression.strip():
        raise SettingError(f"where must be an expression over catalogue columns, got {expression!r}. {_EXAMPLE}")
    if len(expression) > LONGEST:
        raise SettingError(f"where must have at most {LONGEST} characters, got {len(expression)}. Long lists of items belong "
                           "into only_item_ids or exclude_item_ids.")  # fmt: skip
    names: dict[str, str] = {}

    def name(match: re.Match) -> str:
        if match[1]:
            return match[1]
        names[f"column_{len(names)}_in_backticks"] = match[2]
        return f"column_{len(names) - 1}_in_backticks"

    try:
        tree = ast.parse(_QUOTED.sub(name, expression).strip(), mode="eval").body
        for node in ast.walk(tree):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                node.value.encode()  # half of a character, "\\ud800", is no text
        return tree, names
    except UnicodeEncodeError:
        raise SettingError(f"where must be text, got half a character (a lone surrogate) in {expression!r}.") from None
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        hint = " Equal is written ==." if re.search(r"[^=<>!]=[^=]", expression) else ""
        message = getattr(error, "msg", "it is too deep")
        raise SettingError(f"where cannot be read: {message} in {expression!r}.{hint} {_EXAMPLE}") from None


class _Evaluation:
    def __init__(
        self,
        table: pa.Table,
        names: dict[str, str],
        expression: str,
        encoded: dict[str, pa.DictionaryArray | None] | None = None,
    ) -> None:
        self.table, self.names, self.expression, self.encoded = table, names, expression, encoded

    def of(self, node: ast.expr, depth: int) -> Any:
        """The value of a part: an Arrow array or scalar."""
        if depth > DEEPEST:
            raise SettingError(f"where may be {DEEPEST} levels deep, got more in {self.expression!r}. Split it.")
        deeper = depth + 1
        match node:
            case ast.Constant(value=str() | bool() | int() | float() | None as value):
                try:
                    return pa.scalar(value)
                except (OverflowError, pa.ArrowInvalid):
                    raise self._wrong(f"{value} is too large a number") from None
            case ast.Name(id=name):
                return self._column(name)
            case ast.BoolOp(op=op, values=parts):
                join = pc.and_kleene if isinstance(op, ast.And) else pc.or_kleene
                result = self._truth(parts[0], deeper)
                for part in parts[1:]:
                    result = join(result, self._truth(part, deeper))
                return result
            case ast.UnaryOp(op=ast.Not(), operand=part):
                return pc.invert(self._truth(part, deeper))
            case ast.UnaryOp(op=ast.USub(), operand=part):
                return self._call(pc.negate, node, self.of(part, deeper))
            case ast.BinOp(op=op, left=left, right=right) if type(op) in _ARITHMETIC:
                a, b = self.of(left, deeper), self.of(right, deeper)
                if isinstance(op, ast.Div):
                    b = self._call(lambda x: x.cast(pa.float64()), node, b)  # 1 / 2 is a half; by 0 is infinite, no error
                return self._call(_ARITHMETIC[type(op)], node, a, b)
            case ast.Compare() | ast.Call() if (column := self._encoded(node)) is not None:
                name, values = column
                one_each = pa.table({name: values.dictionary})
                return pc.take(_Evaluation(one_each, self.names, self.expression).of(node, depth), values.indices)
            case ast.Compare(left=left, ops=ops, comparators=rights):
                parts = [left, *rights]
                steps = [self._compare(op, a, b, node, deeper) for op, a, b in zip(ops, parts, rights, strict=False)]
                result = steps[0]
                for step in steps[1:]:
                    result = pc.and_kleene(result, step)
                return result
            case ast.Call(func=ast.Name(id="contains"), args=[column, ast.Constant(value=str() as text)], keywords=[]):
                values = self.of(column, deeper)
                if _is_list(values.type):
                    return self._any(values, lambda x: pc.match_substring(x, text, ignore_case=True), node)
                return self._call(lambda x: pc.match_substring(x, text, ignore_case=True), node, values)
        raise self._wrong(
            f"{ast.unparse(node)!r} is not allowed; columns, numbers, texts, and, or, not, in, is None, comparisons, + - * / "
            "and contains(column, text) are"
        )

    def _column(self, name: str) -> pa.ChunkedArray:
        name = self.names.get(name, name)
        if name not in self.table.column_names:
            raise self._wrong(f"the catalogue has no column {name!r}.{nearest(name, self.table.column_names)} It has "
                              f"{', '.join(self.table.column_names)}")  # fmt: skip
        column = self.table.column(name)
        if pa.types.is_dictionary(column.type):
            column = column.cast(column.type.value_type)
        if pa.types.is_floating(column.type):  # pandas writes a missing number as NaN
            missing = pc.is_nan(column)
            if pc.any(missing).as_py():
                column = pc.if_else(missing, pa.scalar(None, column.type), column)
        return column

    def _encoded(self, node: ast.expr) -> tuple[str, pa.DictionaryArray] | None:
        """The one column that `node` looks at and its dictionary, where it is a text of few values and not asked for None."""
        if self.encoded is None:
            return None
        below = list(ast.walk(node))
        names = {part.id for part in below if isinstance(part, ast.Name)} - {"contains"}
        if len(names) != 1 or any(isinstance(part, (ast.Is, ast.IsNot)) for part in below):
            return None
        name = self.names.get(*names, *names)
        if name not in self.encoded:
            if name not in self.table.column_names or not is_text(self.table.column(name).type):
                return None
            values = pc.dictionary_encode(self.table.column(name).combine_chunks())
            values = values.combine_chunks() if isinstance(values, pa.ChunkedArray) else values
            self.encoded[name] = values if 4 * len(values.dictionary) < len(values) else None
        values = self.encoded[name]
        return None if values is None else (name, values)

    def _truth(self, node: ast.expr, depth: int) -> Any:
        value = self.of(node, depth)
        if not pa.types.is_boolean(value.type):
            raise self._wrong(f"{ast.unparse(node)!r} is {value.type}, not true or false; compare it with something")
        return value

    def _compare(self, op: ast.cmpop, left: ast.expr, right: ast.expr, node: ast.expr, depth: int) -> Any:
        if isinstance(op, (ast.Is, ast.IsNot)):
            if not (isinstance(right, ast.Constant) and right.value is None):
                raise self._wrong("`is` goes with None only; use == for values")
            value = self.of(left, depth)
            missing = pc.is_null(value)
            return missing if isinstance(op, ast.Is) else pc.invert(missing)
        if isinstance(op, (ast.In, ast.NotIn)):
            inside = self._inside(left, right, node, depth)
            return inside if isinstance(op, ast.In) else pc.invert(inside)
        if type(op) not in _COMPARISONS:
            raise self._wrong(f"{ast.unparse(node)!r} is not a comparison that where knows")
        a, b = self.of(left, depth), self.of(right, depth)
        for one, other in ((a, b), (b, a)):
            if _is_list(one.type):
                raise self._wrong(f'{ast.unparse(node)!r} compares a column of lists; write "value" in column')
            if pa.types.is_temporal(one.type) and pa.types.is_string(other.type):
                cast = self._call(lambda x, kind=one.type: x.cast(kind), node, other)
                a, b = (one, cast) if one is a else (cast, one)
        if any(isinstance(x, pa.NullScalar) for x in (a, b)):
            raise self._wrong("a comparison with None is never true; write `is None` or `is not None`")
        return self._call(_COMPARISONS[type(op)], node, a, b)

    def _inside(self, left: ast.expr, right: ast.expr, node: ast.expr, depth: int) -> Any:
        """`column in [values]`, `"value" in column_of_lists`, `"part" in column_of_text`."""
        if isinstance(right, (ast.List, ast.Tuple, ast.Set)):
            parts = [part if isinstance(part, ast.Constant) else self.of(part, depth) for part in right.elts]
            if not all(isinstance(part, (ast.Constant, pa.Scalar)) for part in parts):
                raise self._wrong(f"{ast.unparse(node)!r}: a list after `in` takes numbers and texts, not columns")
            values = [part.value if isinstance(part, ast.Constant) else part.as_py() for part in parts]
            column = self.of(left, depth)
            try:
                wanted = pa.array(values)
                if pa.types.is_temporal(column.type) and pa.types.is_string(wanted.type):
                    wanted = wanted.cast(column.type)
                elif pa.types.is_null(column.type):
                    wanted = pa.array([], column.type)
                elif len(wanted) and pa.types.is_string(wanted.type) != is_text(column.type):
                    raise pa.ArrowInvalid("text is written in quotes, numbers are not")
                found = pc.is_in(column, value_set=wanted.cast(column.type))
            except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError, OverflowError) as error:
                raise self._wrong(f"{ast.unparse(node)!r} compares {column.type} with {values!r} ({error})") from None
            return pc.if_else(pc.is_null(column), pa.scalar(None, pa.bool_()), found)
        value, column = self.of(left, depth), self.of(right, depth)
        if not isinstance(value, pa.Scalar) or isinstance(column, pa.Scalar):
            raise self._wrong(f'{ast.unparse(node)!r}: `in` takes a column in [values], or "value" in a column')
        if is_text(column.type):
            return self._call(lambda x: pc.match_substring(x, value.as_py()), node, column)
        if not _is_list(column.type):
            raise self._wrong(f"{ast.unparse(node)!r}: the column holds {column.type}, neither lists nor text")
        return self._any(column, lambda x: pc.equal(x, value), node)

    def _any(self, column: pa.ChunkedArray, matches_value: Callable, node: ast.expr) -> pa.Array:
        """For a column of lists: whether any value of the list matches."""
        array = column.combine_chunks()
        matches = self._call(matches_value, node, pc.list_flatten(array))
        lengths = pc.fill_null(pc.list_value_length(array), 0).to_numpy(zero_copy_only=False)
        rows = np.repeat(np.arange(len(array)), lengths)[pc.fill_null(matches, False).to_numpy(zero_copy_only=False)]
        found = np.zeros(len(array), bool)
        found[rows] = True
        return pc.if_else(array.is_valid(), pa.array(found), pa.scalar(None, pa.bool_()))

    def _call(self, function: Callable, node: ast.expr, *values: Any) -> Any:
        try:
            return function(*values)
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError, TypeError, OverflowError) as error:
            kinds = " and ".join(str(value.type) for value in values)
            raise self._wrong(f"{ast.unparse(node)!r} does not fit {kinds} ({str(error).splitlines()[0]})") from None

    def _wrong(self, what: str) -> SettingError:
        for stand_in, name in self.names.items():
            what = what.replace(stand_in, f"`{name}`")
        return SettingError(f"where cannot be used: {what}. It was {self.expression!r}.")


def _is_list(kind: pa.DataType) -> bool:
    return pa.types.is_list(kind) or pa.types.is_large_list(kind)
