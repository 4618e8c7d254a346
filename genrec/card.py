"""The model card of a bundle: what it is and reads, what was measured, what it cannot. Markdown, for people and for the hub.

In: the recipe, the results and the hashes of a fit. Out: the text of the bundle's README.md, with the front matter of a model
of the Hugging Face hub. It names no licence: that is for who publishes to say.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from genrec.codes import CodeTable
from genrec.evaluation.evaluate import Result, markdown_table, report_table
from genrec.models.config import ENCODER_DECODER, ONE_PASS
from genrec.models.tokens import TokenLayout
from genrec.recipe import Recipe
from genrec.training.tasks.dialogue import DIALOGUE_TASKS
from genrec.training.tasks.families import TASKS


def model_card(
    name: str,
    recipe: Recipe,
    results: list[Result],
    hashes: Mapping[str, str | None],
    codes: CodeTable,
    layout: TokenLayout,
) -> str:
    """Markdown with YAML front matter. results: the model's own first; none where it was fitted on another catalogue, and
    `hashes` then has no "interactions"."""
    base = recipe.model.pretrained
    more = {name: found for name, found in hashes.items() if name not in ("items", "interactions", "codes") and found}
    front: dict[str, Any] = {
        "library_name": "genrec",
        "tags": ["recommendation", "generative-recommendation", "semantic-ids"],
    }
    if base and _on_the_hub(base):
        front["base_model"] = base
    if results:
        front["model-index"] = [{"name": name, "results": _index(results[0], recipe, str(hashes["interactions"]))}]
    return f"""---
{yaml.safe_dump(front, sort_keys=False).strip()}
---

# {name}

{_about(recipe)}

```python
from genrec import Recommender

recommender = Recommender.load("path/to/this/folder")
recommender.recommend([["{codes.item_ids[0]}"]], k=10)
```

| | |
| --- | --- |
| items | {len(codes):,} |
| codes per level | {" x ".join(map(str, codes.sizes))} |
| collision policy | {codes.policy} |
| code table | `{codes.hash}` |
| items table | `{hashes["items"]}` |
| interactions table | `{hashes.get("interactions") or "none of this catalogue"}` |
{"".join(f"| {name.replace('_', ' ')} | `{found}` |{chr(10)}" for name, found in more.items())}| seed | {recipe.seed} |

## What it reads

{_reads(recipe, codes, layout)}

## Measured

{_measured(recipe, results)}

## Limits

{_limits(recipe)}

## Recipe

```yaml
{yaml.safe_dump(recipe.to_dict(), sort_keys=False).strip()}
```
"""


def _on_the_hub(base: str) -> bool:
    """Whether this may be a name there, and no folder: the hub refuses a card whose base model is one."""
    return re.fullmatch(r"\w[\w.-]*(/\w[\w.-]*)?", base) is not None and not Path(base).exists()


def _measured(recipe: Recipe, results: list[Result]) -> str:
    if not results:
        return (
            "Nothing yet on this catalogue: the model was fitted elsewhere and knows these items by their texts.\n"
            "`genrec evaluate` measures it on this shop's interactions."
        )
    return (
        f"Item level, full ranking, split `{recipe.data.split}`, {recipe.data.questions} questions; the model was chosen on "
        f"validation and scored once on test.\n\n{report_table(results)}\n\nThe model's numbers with their 95 % intervals, "
        f"bootstrapped over users:\n\n{_intervals(results[0])}"
    )


def _intervals(result: Result) -> str:
    names = [name for name in next(iter(result.metrics.values())) if name.split("@")[0] in ("recall", "ndcg", "mrr")]
    rows = [
        [
            name,
            *(f"{found[name].mean:.4f} ({found[name].low:.4f} to {found[name].high:.4f})" for found in result.metrics.values()),
        ]
        for name in names
    ]
    return markdown_table(["metric", *(f"seen items {protocol}" for protocol in result.metrics)], rows)


def _index(result: Result, recipe: Recipe, data: str) -> list[dict[str, Any]]:
    """The model's numbers as the hub reads them from a card."""
    task = {"type": "recommendation", "name": "Next item, full catalogue"}
    dataset = {"type": "genrec", "name": f"interactions {data[:12]}, {recipe.data.split}", "split": "test"}
    metrics = [
        {"type": name, "name": f"{name}, seen items {protocol}", "value": round(found[name].mean, 6)}
        for protocol, found in result.metrics.items()
        for name in found
        if name.split("@")[0] in ("recall", "ndcg")
    ]
    return [{"task": task, "dataset": dataset, "metrics": metrics}]


def _reads(recipe: Recipe, codes: CodeTable, layout: TokenLayout) -> str:
    """What a request holds, and for language models how it is written in tokens."""
    most = recipe.training.max_history
    text = f"A history: ids of items of its catalogue, oldest first; the latest {most} are read; none at all is a new user."
    if recipe.model.architecture == ONE_PASS:
        return text
    tokens = [int(token) for token in layout.to_tokens(np.asarray(codes.codes[:1]))[0]]
    told = "then "
    if layout.soft:
        told += f"{layout.soft} vectors of the user adapter, made of the items before those that are read, then "
    if layout.index:
        told += f"{len(layout.index)} tokens of the user index, made of all items of the history, then "
    read = f"{layout.queries} vectors an item, made of its own by the item encoder; as codes it is"
    if not layout.queries:
        read = f"{layout.levels} tokens an item,"
    text += (
        f" As tokens: `{layout.start}`, {told}{read} by arithmetic and never through text; the item "
        f"`{codes.item_ids[0]}` is `{tokens}`. The answer is the {layout.levels} tokens of an item, found by genrec's search "
        "over the catalogue; free generation may spell items that do not exist."
    )
    learned = [task for task in (*TASKS, *DIALOGUE_TASKS) if task.name in recipe.tasks.aligned]
    if not learned:
        return text + " It was trained on nothing else: it answers no prompts in words."
    prompts = [
        [task.name, f"`{task.templates[-1].told}`".replace("\n", "\\n"), f"`{task.templates[-1].answer}`"] for task in learned
    ]
    return (
        f"{text}\n\nIt also learned these prompts, in several wordings each; histories and items in them are code tokens. Only "
        f"plain histories were measured.\n\n{markdown_table(['task', 'prompt, for example', 'answer'], prompts)}"
    )


def _limits(recipe: Recipe) -> str:
    limits = [
        "It recommends items of its catalogue and of additions to it, and knows its users by the items they had, nothing else.",
        "What was measured is how well it tells what people took next in data of the past, not what a recommendation changes.",
        "It follows its training data: popular items are recommended more, and items without training events rarely. "
        "`genrec evaluate --out` shows both, and gaps between groups of items.",
        "Scores compare items after one history. They are no probabilities of a purchase, and mean nothing across models.",
        "The folder holds the catalogue as a table, and weights that were learned from people's histories. Publish it only "
        "where both may be read.",
    ]
    if base := recipe.model.pretrained:
        limits.append(
            f"It is {base if _on_the_hub(base) else Path(base).name}, fine-tuned: what that model must not be used for, this "
            "must not be used for either, its licence included. As a chat model it was not tested, and may have forgotten how."
        )
    return "\n".join(f"- {limit}" for limit in limits)


def _about(recipe: Recipe) -> str:
    if recipe.model.architecture == ONE_PASS:
        choice = recipe.one_pass
        return (
            "A recommender made by genrec: a network that reads a history once and scores every item of its catalogue "
            f"(identifier `{choice.identifier}`, attention `{choice.attention}`, loss `{choice.loss}`)."
        )
    base = recipe.model.pretrained
    of_t5 = "T5 encoder-decoder with DiscRec's branches" if recipe.model.discrec else "T5 encoder-decoder"
    kind = of_t5 if recipe.model.architecture == ENCODER_DECODER else "Qwen3-architecture decoder"
    made = f"{base}, fine-tuned" if base else f"a {kind} trained from scratch"
    return (
        f"A generative recommender made by genrec: {made} to write the codes of the next item,\n"
        "decoded under the constraint that only items of its catalogue can be spelled."
    )
