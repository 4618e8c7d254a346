// Filters as people set them, in words and as a `where` expression of the API.
//
// A filter: {column, kind: "values", value, not, many} or {column, kind: "number" | "date", low, high} ("" for none).

const quoted = (text) => JSON.stringify(text);
const named = (column) => `\`${column}\``;

export function wordsOf({ column, kind, value, not, low, high }) {
  if (kind === "values") return `${column}: ${not ? "not " : ""}${value}`;
  if (low !== "" && high !== "") return `${column}: ${low} to ${high}`;
  return `${column}: ${low !== "" ? `from ${low}` : `up to ${high}`}`;
}

function condition({ column, kind, value, many, low, high }) {
  if (kind === "values") return many ? `${quoted(value)} in ${named(column)}` : `${named(column)} == ${quoted(value)}`;
  const bound = (text) => (kind === "date" ? quoted(text) : String(Number(text)));
  const parts = [];
  if (low !== "") parts.push(`${named(column)} >= ${bound(low)}`);
  if (high !== "") parts.push(`${named(column)} <= ${bound(high)}`);
  return parts.join(" and ");
}

/** All filters hold; of the values wanted of one column any will do. null where there is no filter. own: an expression. */
export function whereOf(filters, own) {
  const wanted = new Map();
  const parts = own ? [`(${own})`] : [];
  for (const filter of filters) {
    if (filter.kind !== "values") parts.push(`(${condition(filter)})`);
    else if (filter.not) parts.push(`not (${condition(filter)})`);
    else wanted.set(filter.column, [...(wanted.get(filter.column) ?? []), condition(filter)]);
  }
  for (const any of wanted.values()) parts.push(`(${any.join(" or ")})`);
  return parts.join(" and ") || null;
}
