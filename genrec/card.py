"""The model card of a bundle: what it is, how to use it, what was measured. Markdown, for people and for the hub.

In: the recipe, the results and the hashes of a fit. Out: the text of the bundle's README.md.
"""

from collections.abc import Mapping

import yaml

from genrec.codes import CodeTable
from genrec.evaluation.evaluate import Result, report_table
from genrec.models.config import ENCODER_DECODER, ONE_PASS
from genrec.recipe import Recipe


def model_card(name: str, recipe: Recipe, results: list[Result], hashes: Mapping[str, str | None], codes: CodeTable) -> str:
    """Markdown with YAML front matter. results: none where the model was fitted on another catalogue; `hashes` then has no
    "interactions"."""
    base = recipe.model.pretrained
    front = {"library_name": "genrec", "tags": ["recommendation", "generative-recommendation", "semantic-ids"]}
    if base:
        front["base_model"] = base
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
| seed | {recipe.seed} |

## Measured

{_measured(recipe, results)}

## Recipe

```yaml
{yaml.safe_dump(recipe.to_dict(), sort_keys=False).strip()}
```
"""


def _measured(recipe: Recipe, results: list[Result]) -> str:
    if not results:
        return (
            "Nothing yet on this catalogue: the model was fitted elsewhere and knows these items by their texts.\n"
            "`genrec evaluate` measures it on this shop's interactions."
        )
    return (
        f"Item level, full ranking, split `{recipe.data.split}`, {recipe.data.questions} questions; the model was chosen on "
        f"validation and scored once on test.\n\n{report_table(results)}"
    )


def _about(recipe: Recipe) -> str:
    if recipe.model.architecture == ONE_PASS:
        choice = recipe.one_pass
        return (
            "A recommender made by genrec: a network that reads a history once and scores every item of its catalogue "
            f"(identifier `{choice.identifier}`, attention `{choice.attention}`, loss `{choice.loss}`)."
        )
    base = recipe.model.pretrained
    kind = "T5 encoder-decoder" if recipe.model.architecture == ENCODER_DECODER else "Qwen3-architecture decoder"
    made = f"{base}, fine-tuned" if base else f"a {kind} trained from scratch"
    return (
        f"A generative recommender made by genrec: {made} to write the codes of the next item,\n"
        "decoded under the constraint that only items of its catalogue can be spelled."
    )
