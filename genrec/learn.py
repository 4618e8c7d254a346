"""The stage of a fit that learns: a language model that writes codes, or a one-pass model that scores all items.

In: the recipe, the tables, the catalogue with its codes and vectors, the split. Out: a ranker with the trained model, and what
the training said. `genrec fit` calls this between the codes and the evaluation; checkpoints lie in its folder `work`.
"""

import logging
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from transformers import AutoTokenizer

from genrec.bundle import Bundle
from genrec.data.catalogue import Catalogue
from genrec.data.interactions import Histories
from genrec.data.splits import Split
from genrec.decoding.one_pass import OnePassRanker
from genrec.decoding.ranker import BeamRanker
from genrec.decoding.snapshot import Snapshot
from genrec.decoding.user_index import UserIndex
from genrec.embedding.fused import ItemEmbedder
from genrec.embedding.text import default_template, render
from genrec.models.adapters import merged
from genrec.models.centroids import begin_at_centroids
from genrec.models.config import ENCODER_DECODER
from genrec.models.decoder import build_decoder
from genrec.models.encoder_decoder import build_encoder_decoder
from genrec.models.item_encoder import encoder_of, take_item_encoder
from genrec.models.one_pass.config import OnePassConfig, Shape
from genrec.models.one_pass.model import OnePassModel
from genrec.models.pretrained import Named
from genrec.models.tokens import TokenLayout
from genrec.models.user_adapter import take_user_adapter
from genrec.networks import seeded
from genrec.recipe import Recipe
from genrec.recommender import Recommender
from genrec.tables import Tables
from genrec.tasks import mix_of
from genrec.training import processes
from genrec.training.item_encoder import align
from genrec.training.one_pass import train_one_pass
from genrec.training.preference import post_train
from genrec.training.teacher import Lists, Teacher
from genrec.training.trainer import TrainingResult, train

log = logging.getLogger(__name__)


def learn_language_model(
    recipe: Recipe,
    tables: Tables,
    snapshot: Snapshot,
    split: Split,
    counts: np.ndarray,
    work: Path,
    embedder: ItemEmbedder,
    exclude_seen: bool,
    teacher: Bundle | None = None,
) -> tuple[BeamRanker, TrainingResult]:
    """A language model that writes codes, trained. teacher: what the recipe's training.teacher names."""
    sizes, history = snapshot.index.sizes, recipe.training.max_history
    build = build_encoder_decoder if recipe.model.architecture == ENCODER_DECODER else build_decoder
    named = Named(snapshot.codes, item_texts(tables.catalogue, recipe)) if recipe.model.new_rows == "text" else None
    user_index = _user_index(recipe, split.train, snapshot, work) if recipe.model.user_index else None
    assert snapshot.vectors is not None
    most = recipe.model.lead + (recipe.model.queries or len(sizes)) * history + len(sizes)
    width = snapshot.vectors.shape[1]
    model, layout = build(recipe.model, sizes, most, named, width)
    if recipe.model.new_rows == "vectors":
        begin_at_centroids(model, layout, snapshot.codes, snapshot.vectors)
    if (encoder := encoder_of(model)) is not None:
        content = width - embedder.collaborative_width
        align(encoder, split.train, snapshot.vectors, content, recipe.model.item_encoder_epochs, recipe.seed)
    mix = None
    if recipe.tasks.aligned:
        text_tokenizer = AutoTokenizer.from_pretrained(recipe.model.pretrained)
        mix, _ = mix_of(recipe, tables, split.train, snapshot.codes, layout, text_tokenizer)
        for task in mix.tasks:
            told = task.name, len(task.examples), task.slots, len(task.prompts)
            log.info("Task %s: %d examples, %d in an epoch, %d sentences", *told)
    log.info("Training a %s of %.1fM weights on %d users", model.config.model_type, weights_of(model) / 1e6, len(split.train))
    lists = None if teacher is None else _lists(recipe, teacher, tables.catalogue, split.train, exclude_seen, work)
    training = replace(recipe.training, logging_folder=recipe.training.logging_folder or f"{work.parent}-logs")
    trained = train(
        model, layout, snapshot, split, training, work / "training", exclude_seen,
        recipe.seed, snapshot.vectors, mix, user_index, lists,
    )  # fmt: skip
    if recipe.post_training.method:
        post = post_train(
            model, layout, snapshot, split, training, recipe.post_training, work / "post_training", exclude_seen,
            trained.best, recipe.seed, user_index,
        )  # fmt: skip
        trained = replace(trained, best=max(trained.best, *post["epochs"]), post=post)
    plain = merged(model)
    return BeamRanker(
        plain, layout, snapshot, recipe.decoding.beam_width, history, user_index=user_index,
        user_adapter=take_user_adapter(plain), item_encoder=take_item_encoder(plain),
    ), trained  # fmt: skip


def _lists(recipe: Recipe, teacher: Bundle, catalogue: Catalogue, train: Histories, exclude_seen: bool, work: Path) -> Lists:
    """What the teacher recommends at every training event. Of several processes the first asks it, and the others read what it
    wrote. Its votes are left out: they are made of the very events that it is asked about, and would tell what came."""
    folder = work / "teacher"
    if processes.is_first():
        ranker = Recommender(teacher).ranker
        ranker.fusion = None
        asked = Teacher(ranker, teacher.catalogue.rows(catalogue.item_ids))
        asked.lists(train, min(recipe.training.teacher_items, len(catalogue)), exclude_seen, folder)
    processes.wait()
    return Lists.load(folder)


def _user_index(recipe: Recipe, train: Histories, snapshot: Snapshot, work: Path) -> UserIndex:
    """The centroids of the user index. Of several processes the first learns them, and the others read what it wrote."""
    path = work / "user_index.safetensors"
    if processes.is_first():
        assert snapshot.vectors is not None
        UserIndex.fit(train, snapshot.vectors, recipe.model.user_index, recipe.seed).save(path)
    processes.wait()
    return UserIndex.load(path)


def learn_one_pass(
    recipe: Recipe,
    tables: Tables,
    snapshot: Snapshot,
    split: Split,
    counts: np.ndarray,
    work: Path,
    embedder: ItemEmbedder,
    exclude_seen: bool,
) -> tuple[OnePassRanker, TrainingResult]:
    """A network that scores all items at once, trained. Where the recipe says so, two are, with and without vectors, and the
    one with the better validation is given (of equals, the one with)."""
    choice = replace(recipe.one_pass, try_without_vectors=False)
    ways = {"training": choice}
    if recipe.one_pass.try_without_vectors:
        ways["training_without_vectors"] = replace(choice, parts=tuple(part for part in choice.parts if part != "vectors"))
    made = []
    for folder, way in ways.items():
        known = snapshot if "vectors" in way.parts else replace(snapshot, vectors=None)
        model = seeded(recipe.seed, partial(OnePassModel, _shape(way, recipe, snapshot, len(counts), embedder)))
        log.info("Training a one-pass model of %.1fM weights on %d users", weights_of(model) / 1e6, len(split.train))
        trained = train_one_pass(model, known, counts, split, recipe.training, exclude_seen, recipe.seed, work / folder)
        made.append((trained, OnePassRanker(model, TokenLayout.from_scratch(snapshot.index.sizes), known, counts)))
        log.info("Made of %s: validation NDCG@10 %.4f", ", ".join(way.parts), trained.best)
    trained, ranker = max(made, key=lambda pair: pair[0].best)
    return ranker, trained


def _shape(choice: OnePassConfig, recipe: Recipe, snapshot: Snapshot, items: int, embedder: ItemEmbedder) -> Shape:
    """The network that a choice asks for."""
    assert snapshot.vectors is not None
    network, together = recipe.model, embedder.collaborative_width if "vectors" in choice.parts else 0
    content = snapshot.vectors.shape[1] - together if "vectors" in choice.parts else 0
    return Shape(
        choice, snapshot.index.sizes, items, content, together, recipe.training.max_history,
        network.hidden_size, network.layers, network.heads, network.feed_forward, network.dropout,
    )  # fmt: skip


def item_texts(catalogue: Catalogue, recipe: Recipe) -> list[str]:
    """What the recipe says an item's text is, one per row."""
    template = default_template(catalogue) if recipe.text.template == "auto" else recipe.text.template
    return render(catalogue, template)


def weights_of(model: torch.nn.Module) -> int:
    """How many numbers it has learned."""
    return sum(parameter.numel() for parameter in model.parameters())
