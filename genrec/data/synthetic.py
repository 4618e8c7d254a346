"""A made-up shop for demos and tests: readable products, users with tastes, sessions in which one purchase leads to the next.

In: how many users and items, and a seed. Out: a `Catalogue` and `Interactions`, or the same as two CSV files.

    from genrec.data import make_shop, write_shop
    catalogue, interactions = make_shop()
    write_shop("shop")  # shop/items.csv and shop/interactions.csv

What there is to learn. A product line (brand + range: "Lumen Hydrating") has up to six products of one category that
are used one after the other: shampoo, conditioner, hair mask; printer, cartridges, paper. After an item, a user takes the next
of the same line, sometimes after a detour; or another line of the same brand; or the same product of another line; or something
from their favourite categories at their price level. How often each depends on the user's style, which shows only over several
purchases: half complete a line, others stay with a brand, others compare products. Popularity is only mildly skewed and nobody
buys an item twice, so popularity is a weak guess, the last item a good one and the whole history the best.

All randomness is PCG64's raw output turned into numbers by plain arithmetic. NumPy promises to keep that stream, so a seed
gives the same tables with every version.
"""

from collections.abc import Sequence
from os import PathLike
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv as pacsv

from genrec.columns import ITEM_ID, TIMESTAMP, USER_ID
from genrec.data.catalogue import Catalogue
from genrec.data.interactions import Interactions
from genrec.errors import check_integer

BRANDS = (
    "Lumen", "Norvik", "Aveia", "Tamsin", "Oakridge", "Belluno", "Kestrel", "Marisol", "Fjell", "Pomelo",
    "Quillon", "Saffra", "Hartwell", "Verano", "Ibis", "Juniper", "Castell", "Dovetail", "Ember", "Zephyr",
)  # fmt: skip
CARE = ("Hydrating", "Repair", "Calming", "Glow", "Pure", "Fresh")
HOME = ("Classic", "Pro", "Compact", "Eco", "Studio", "Essential")
SPORT = ("Trail", "Swift", "Ultra", "Lite", "Storm", "Summit")

# category: ranges, then the products of a line in the order in which people come to need them: (name, size, price, use)
CATEGORIES: dict[str, tuple[tuple[str, ...], tuple[tuple[str, str, float, str], ...]]] = {
    "Beauty > Skin care": (CARE, (
        ("Face Cleanser", "150 ml", 9.0, "Washes off make-up and sebum without drying the skin"),
        ("Face Toner", "200 ml", 11.0, "Balances the skin after cleansing"),
        ("Face Serum", "30 ml", 22.0, "A light concentrate for the evening routine"),
        ("Moisturiser", "50 ml", 18.0, "A day cream that keeps moisture in"),
        ("Eye Cream", "15 ml", 20.0, "Cools and smooths the skin around the eyes"),
        ("Sunscreen SPF 50", "50 ml", 16.0, "Protects from sun without a white cast"))),
    "Beauty > Hair care": (CARE, (
        ("Shampoo", "250 ml", 7.0, "Cleans hair and scalp gently"),
        ("Conditioner", "250 ml", 8.0, "Untangles hair after washing"),
        ("Hair Mask", "200 ml", 14.0, "A weekly treatment for tired hair"),
        ("Hair Oil", "100 ml", 15.0, "A few drops tame dry ends"),
        ("Styling Cream", "100 ml", 12.0, "Shapes hair and leaves it soft"),
        ("Scalp Scrub", "150 ml", 13.0, "Frees the scalp from residue"))),
    "Beauty > Bath and body": (CARE, (
        ("Shower Gel", "300 ml", 5.0, "A mild wash for every day"),
        ("Body Scrub", "200 ml", 10.0, "Polishes rough skin with fine salt"),
        ("Body Lotion", "250 ml", 9.0, "Sinks in quickly after the shower"),
        ("Hand Cream", "75 ml", 6.0, "For hands that are washed often"),
        ("Deodorant", "50 ml", 6.5, "Keeps fresh for a day without aluminium"),
        ("Bath Salt", "500 g", 8.0, "Turns a bathtub into an evening off"))),
    "Office > Printing": (HOME, (
        ("Inkjet Printer", "A4", 89.0, "Prints, scans and copies over Wi-Fi"),
        ("Black Ink Cartridge", "2 pack", 21.0, "Sharp black text, about 400 pages each"),
        ("Colour Ink Cartridge", "3 pack", 29.0, "Cyan, magenta and yellow ink"),
        ("Photo Paper", "50 sheets", 12.0, "Glossy paper for prints that last"),
        ("Printer Cable", "2 m", 7.0, "A shielded USB cable for printers"),
        ("Print Head Cleaner", "100 ml", 9.0, "Dissolves dried ink in blocked nozzles"))),
    "Office > Writing": (HOME, (
        ("Fountain Pen", "medium nib", 32.0, "A steel nib that starts at the first touch"),
        ("Ink Bottle", "50 ml", 12.0, "Quick-drying ink for fountain pens"),
        ("Ink Converter", "2 pack", 6.0, "Lets a cartridge pen drink from a bottle"),
        ("Notebook", "A5", 11.0, "Thick dotted paper that ink does not bleed through"),
        ("Pen Case", "for 3 pens", 17.0, "A soft roll that keeps pens from scratches"),
        ("Blotting Paper", "20 sheets", 5.0, "Dries a page before you turn it"))),
    "Home > Coffee": (HOME, (
        ("Espresso Machine", "15 bar", 149.0, "Real espresso at home within a minute"),
        ("Coffee Grinder", "40 mm burr", 69.0, "Even grounds from filter to espresso"),
        ("Espresso Beans", "1 kg", 17.0, "A dark roast with a taste of cocoa"),
        ("Milk Jug", "350 ml", 13.0, "A steel jug for steaming milk"),
        ("Espresso Cups", "set of 4", 19.0, "Thick porcelain that keeps coffee warm"),
        ("Descaler", "500 ml", 8.0, "Removes limescale from boilers"))),
    "Home > Baking": (HOME, (
        ("Stand Mixer", "5 l", 129.0, "Kneads heavy dough without walking away"),
        ("Cake Tin", "26 cm", 14.0, "A springform that does not leak"),
        ("Baking Mat", "40 x 30 cm", 9.0, "Silicone in place of baking paper"),
        ("Piping Set", "12 nozzles", 12.0, "Rosettes, borders and letters"),
        ("Cooling Rack", "3 tiers", 15.0, "Lets cakes cool from all sides"),
        ("Cake Stand", "30 cm", 24.0, "Turns while you decorate"))),
    "Sport > Running": (SPORT, (
        ("Running Shoes", "neutral", 95.0, "Soft landing and a quick roll for long runs"),
        ("Running Socks", "3 pairs", 14.0, "Padded where shoes rub"),
        ("Running Shorts", "with pocket", 29.0, "Light shorts that dry fast"),
        ("Running Shirt", "short sleeve", 27.0, "Carries sweat away from the skin"),
        ("Running Belt", "500 ml", 22.0, "Holds a bottle, a phone and keys"),
        ("Reflective Vest", "one size", 18.0, "Makes you visible from 200 metres"))),
    "Sport > Cycling": (SPORT, (
        ("Bike Helmet", "54-60 cm", 59.0, "A light helmet with 18 vents"),
        ("Bike Light Set", "USB", 26.0, "Front and rear light, charged by cable"),
        ("Bike Lock", "90 cm", 39.0, "Hardened steel in a soft sleeve"),
        ("Cycling Gloves", "gel", 21.0, "Gel pads against numb hands"),
        ("Bottle Cage", "aluminium", 9.0, "Grips a bottle on cobbles"),
        ("Tyre Repair Kit", "12 parts", 8.0, "Patches, levers and a small pump"))),
    "Sport > Camping": (SPORT, (
        ("Tent", "2 persons", 139.0, "Stands in five minutes, in rain too"),
        ("Sleeping Bag", "0 C", 79.0, "Synthetic down that stays warm when damp"),
        ("Sleeping Mat", "6 cm", 45.0, "Packs as small as a bottle"),
        ("Camp Stove", "2600 W", 35.0, "Boils a litre in four minutes"),
        ("Gas Canister", "450 g", 9.0, "A winter mix for stoves with a screw valve"),
        ("Camp Pot", "1.5 l", 25.0, "A pot whose lid is a pan"))),
}  # fmt: skip

NAMES = tuple(CATEGORIES)
SLOTS = 6  # products per line
LEVELS = np.array([0.7, 1.0, 1.6])  # what budget, middle and premium brands charge, as a factor
MIN_LENGTH, MAX_LENGTH = 4, 40
FIRST_SECOND = 1_704_067_200  # 2024-01-01 00:00 UTC
DAY = 86_400

# What leads to the next item, by style: cumulative shares of line, brand, alternative; the rest is taste.
STYLES = np.array([[0.75, 0.82, 0.86], [0.3, 0.8, 0.84], [0.3, 0.36, 0.82]])  # completers, loyalists, comparers
STYLE_SHARES = np.array([0.5, 0.75, 1.0])  # cumulative
NEXT_LINE = 0.6  # how often a brand's next line follows, rather than any
DETOUR = 0.2  # how often the item before the last is continued instead
NEW_SESSION = 0.35
STEPS = np.array([1, 2, SLOTS - 1])  # along a line: the next, skip one, one back
STEP_SHARES = np.array([0.7, 0.9, 1.0])  # cumulative
FIRST_SLOT = np.array([0.5, 0.7, 0.8, 0.87, 0.94, 1.0])  # cumulative: where people enter a line


def make_shop(users: int = 2000, items: int = 600, seed: int = 0) -> tuple[Catalogue, Interactions]:
    """The shop's tables.

    Items: item_id, title, brand, line, category, subcategory, price (dollars), description. Interactions: user_id, item_id,
    timestamp (whole seconds since 1970), in the order of time; 4 to 40 per user (never more than half the catalogue), about
    10 on average, no item twice. Raises `SettingError` for less than 1 user or 10 items, or a negative seed.
    """
    check_integer("users", users, 1)
    check_integer("items", items, 10)
    check_integer("seed", seed, 0)
    random = _Uniforms(seed)
    shop = _Shop(items, random)
    catalogue = Catalogue.from_table(shop.table())
    events = _walk(shop, users, random)
    return catalogue, Interactions.from_table(_event_table(events, shop, catalogue, random))


def write_shop(folder: str | PathLike[str], users: int = 2000, items: int = 600, seed: int = 0) -> tuple[Path, Path]:
    """Write `make_shop`'s tables as `items.csv` and `interactions.csv` into `folder` (made if needed); returns both paths."""
    catalogue, interactions = make_shop(users, items, seed)
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    paths = folder / "items.csv", folder / "interactions.csv"
    for path, table in zip(paths, (catalogue.table, interactions.table), strict=True):
        pacsv.write_csv(table, path)
    return paths


class _Uniforms:
    """Numbers in [0, 1) from PCG64's raw stream."""

    def __init__(self, seed: int) -> None:
        self.bits = np.random.PCG64(seed)

    def __call__(self, size: int) -> np.ndarray:
        return (self.bits.random_raw(size) >> np.uint64(11)) * 2.0**-53

    def order(self, size: int) -> np.ndarray:
        return np.argsort(self(size), kind="stable")


class _Shop:
    """Lines of up to six items. Item `line * 6 + slot` is a line's product number `slot`; the last line may be incomplete.

    Line `l` belongs to category `l % C`. Inside a category two lines in a row share a brand.
    """

    def __init__(self, items: int, random: _Uniforms) -> None:
        self.items = items
        lines = np.arange(-(-items // SLOTS))
        self.categories = min(len(NAMES), len(lines))
        self.category = lines % self.categories
        place = lines // self.categories
        # Moving on by three brands per category gives each brand several, but not all, categories.
        self.brand = (place // 2 + 3 * self.category) % len(BRANDS)
        self.range = place % 2 + 2 * (place // (2 * len(BRANDS)) % 3)
        self.series = place // (6 * len(BRANDS))
        self.brand_level = (random(len(BRANDS)) * 3).astype(np.int64)
        self.level = self.brand_level[self.brand]
        self.markup = 0.9 + 0.2 * random(len(lines))
        popularity = 1.0 / (10.0 + random.order(len(lines)))
        self.row = random.order(items)  # catalogue rows are shuffled: neighbours in the table have nothing in common

        # Lines by category and by brand, padded with the first, and cumulative weights [category, price level, line].
        self.by_category = _padded([np.flatnonzero(self.category == c) for c in range(self.categories)])
        self.by_brand = _padded([np.flatnonzero(self.brand == b) for b in range(len(BRANDS))])
        self.brand_lines = np.bincount(self.brand, minlength=len(BRANDS))
        self.place_in_brand = np.argmax(self.by_brand[self.brand] == lines[:, None], axis=1)
        real = np.arange(self.by_category.shape[1]) < np.bincount(self.category)[:, None]
        affinity = np.where(self.level[self.by_category][:, None, :] == np.arange(3)[:, None], 4.0, 1.0)
        weights = (popularity[self.by_category] * real)[:, None, :] * affinity
        self.shares = np.cumsum(weights, axis=2)

    def table(self) -> pa.Table:
        """The items table, in shuffled order."""
        rows: list[dict[str, object]] = [{} for _ in range(self.items)]
        for item in range(self.items):
            line, slot = divmod(item, SLOTS)
            category, brand = NAMES[self.category[line]], BRANDS[self.brand[line]]
            ranges, products = CATEGORIES[category]
            name, size, price, use = products[slot]
            label = ranges[self.range[line]] + (f" Series {self.series[line] + 1}" if self.series[line] else "")
            following = products[(slot + 1) % SLOTS][0]
            rows[self.row[item]] = {
                ITEM_ID: f"P{self.row[item] + 1:04d}",
                "title": f"{brand} {label} {name} {size}",
                "brand": brand,
                "line": label,
                "category": category,
                "subcategory": name,
                "price": round(float(price * LEVELS[self.level[line]] * self.markup[line]), 2),
                "description": f"{use}. Part of the {label} range by {brand}. Goes well with {brand} {label} {following}.",
            }
        return pa.Table.from_pylist(rows)


def _walk(shop: _Shop, users: int, random: _Uniforms) -> tuple[np.ndarray, np.ndarray]:
    """Simulate all users side by side. Returns (items [users, steps], lengths [users]); items beyond a length are -1."""
    longest = min(MAX_LENGTH, shop.items // 2)
    lengths = _lengths(users, longest, random)
    taste = _tastes(users, shop.categories, random)
    style = STYLES[_draw(np.broadcast_to(STYLE_SHARES, (users, 3)), random(users))]
    level = (random(users) * 3).astype(np.int64)
    bought = np.full((users, longest), -1, np.int64)
    for step in range(int(lengths.max())):
        active = np.flatnonzero(lengths > step)
        chosen = np.full(len(active), -1, np.int64)
        for _attempt in range(6):
            todo = np.flatnonzero(chosen < 0)
            who = active[todo]
            proposal = _propose(shop, bought[who, :step], taste[who], style[who], level[who], random)
            fits = (proposal < shop.items) & ~(bought[who, :step] == proposal[:, None]).any(axis=1)
            chosen[todo[fits]] = proposal[fits]
        todo = np.flatnonzero(chosen < 0)
        # Whoever has bought all that they would like takes the next item that is new to them, from a random place on.
        candidates = ((random(len(todo)) * shop.items).astype(np.int64)[:, None] + np.arange(step + 1)) % shop.items
        seen = (candidates[:, :, None] == bought[active[todo], None, :step]).any(axis=2)
        chosen[todo] = candidates[np.arange(len(todo)), np.argmin(seen, axis=1)]
        bought[active, step] = chosen
    return bought, lengths


def _propose(
    shop: _Shop, past: np.ndarray, taste: np.ndarray, style: np.ndarray, level: np.ndarray, random: _Uniforms
) -> np.ndarray:
    """One wish per user: item [n] (perhaps already bought, perhaps beyond the last line's end). past: [n, steps so far]."""
    n, steps = past.shape
    action, detour, pick, where = random(n), random(n), random(n), random(n)
    category = _draw(taste, random(n))
    line = shop.by_category[category, _draw(shop.shares[category, level], pick)]
    slot = _draw(np.broadcast_to(FIRST_SLOT, (n, SLOTS)), where)
    if steps:
        last = past[np.arange(n), np.where(detour < DETOUR, max(steps - 2, 0), steps - 1)]
        last_line, last_slot = last // SLOTS, last % SLOTS
        brand = shop.brand[last_line]
        lines = shop.brand_lines[brand]
        # `pick` above NEXT_LINE, stretched to [0, 1), chooses any line of the brand.
        any_line = (np.maximum(pick - NEXT_LINE, 0.0) / (1.0 - NEXT_LINE) * lines).astype(np.int64) % lines
        same_brand = shop.by_brand[brand, np.where(pick < NEXT_LINE, (shop.place_in_brand[last_line] + 1) % lines, any_line)]
        alike = shop.category[last_line]
        rival = shop.by_category[alike, _draw(shop.shares[alike, level], pick)]
        onwards = (last_slot + STEPS[_draw(np.broadcast_to(STEP_SHARES, (n, len(STEPS))), where)]) % SLOTS
        kinds = list(action < style.T)
        line = np.select(kinds, [last_line, same_brand, rival], line)
        slot = np.select(kinds, [onwards, slot, last_slot], slot)
    return line * SLOTS + slot


def _draw(cumulative: np.ndarray, uniform: np.ndarray) -> np.ndarray:
    """One column per row of cumulative weights [n, choices] (any last value above 0), by `uniform` [n]."""
    return (cumulative[:, :-1] <= uniform[:, None] * cumulative[:, -1:]).sum(axis=1)


def _lengths(users: int, longest: int, random: _Uniforms) -> np.ndarray:
    """Events per user: each further one is 0.86 times as likely as the one before."""
    shortest = min(MIN_LENGTH, longest)
    weights = np.multiply.accumulate(np.full(longest - shortest + 1, 0.86))
    cumulative = np.cumsum(weights)
    return shortest + np.searchsorted(cumulative, random(users) * cumulative[-1], side="right")


def _tastes(users: int, categories: int, random: _Uniforms) -> np.ndarray:
    """Cumulative category weights per user [users, C]: one love, two likes, little of the rest."""
    rank = np.argsort(random(users * categories).reshape(users, -1), axis=1, kind="stable")
    weights = np.array([0.5, 0.2, 0.2] + [0.015] * categories)[:categories]
    return np.cumsum(weights[rank], axis=1)


def _event_table(events: tuple[np.ndarray, np.ndarray], shop: _Shop, catalogue: Catalogue, random: _Uniforms) -> pa.Table:
    """Sessions minutes long, days apart; everything in the order of time."""
    bought, lengths = events
    users, steps = np.nonzero(bought >= 0)
    fresh = (random(len(users)) < NEW_SESSION) & (steps > 0)
    spread = random(len(users))
    gaps = np.where(fresh, DAY + spread * spread * 20 * DAY, 30 + spread * 600).astype(np.int64)
    starts = FIRST_SECOND + (random(len(lengths)) * 200 * DAY).astype(np.int64)
    elapsed = np.cumsum(gaps)
    first = np.cumsum(lengths) - lengths
    times = starts[users] + elapsed - elapsed[first][users]
    order = np.lexsort((users, times))
    names = np.array([f"U{user + 1:05d}" for user in range(len(lengths))], object)
    ids = catalogue.item_ids[shop.row[bought[users, steps]]]
    return pa.table({USER_ID: names[users][order], ITEM_ID: ids[order], TIMESTAMP: times[order]})


def _padded(groups: Sequence[np.ndarray]) -> np.ndarray:
    """Index lists as one matrix [groups, longest], short rows filled with their first entry (0 where empty)."""
    matrix = np.zeros((len(groups), max(map(len, groups))), np.int64)
    for row, group in zip(matrix, groups, strict=True):
        if len(group):
            row[:] = group[0]
            row[: len(group)] = group
    return matrix
