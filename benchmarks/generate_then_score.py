"""What votes add to a language model's beam: its candidates put in order by co-occurrence, texts and a one-pass model.

    python benchmarks/generate_then_score.py runs/beauty --interactions interactions.parquet --scorer runs/one_pass
    python benchmarks/generate_then_score.py runs/beauty --interactions interactions.parquet --questions 5000

The bundles must be of the same tables and split. Weights are chosen on validation, as `genrec fit` with `fusion.votes` does;
test questions are asked once per row. Prints the share of targets among the beam's candidates (no order can find the others),
then Recall and NDCG of every row with paired tests against the beam alone.
"""

import argparse
from pathlib import Path

from genrec.data.splits import exclude_seen_by_default
from genrec.decoding.one_pass import OnePassRanker
from genrec.decoding.ranker import BeamRanker
from genrec.decoding.scorer import over_rows
from genrec.embedding.text import default_template, render
from genrec.evaluation.compare import compare, comparison_table
from genrec.evaluation.evaluate import evaluate, report_table
from genrec.recipe import Recipe, build
from genrec.recommender import Recommender
from genrec.tables import read_tables, split_histories
from genrec.training.fusion import FusionConfig, choose_fusion


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--interactions", required=True, type=Path)
    parser.add_argument("--scorer", type=Path, help="a one-pass bundle")
    parser.add_argument("--questions", type=int, default=0, help="test questions, drawn at random; 0 for all")
    arguments = parser.parse_args()
    recommender = Recommender.load(arguments.bundle)
    bundle, ranker = recommender.bundle, recommender.ranker
    if not isinstance(ranker, BeamRanker):
        parser.error("the bundle must be that of a language model")
    recipe: Recipe = build(Recipe, bundle.manifest["recipe"], "")
    tables = read_tables(bundle.catalogue.table, arguments.interactions, recipe)
    split = split_histories(tables.interactions.histories(bundle.catalogue, recipe.data.unknown_items), recipe)
    masked = exclude_seen_by_default(split.repeat_share)
    scorer = None
    if arguments.scorer:
        other = Recommender.load(arguments.scorer)
        if not isinstance(other.ranker, OnePassRanker):
            parser.error("--scorer must be the bundle of a one-pass model")
        scorer = over_rows(other.ranker, other.bundle.catalogue.rows(bundle.catalogue.item_ids))
    questions = split.test.sample(arguments.questions, recipe.seed) if arguments.questions else split.test
    texts = render(bundle.catalogue, default_template(bundle.catalogue))
    rows = [(), ("cooccurrence",), ("cooccurrence", "texts")]
    rows += [("one-pass",), ("cooccurrence", "texts", "one-pass")] if scorer else []
    found, _ = ranker.rank(questions.histories, ranker.beam_width, masked, progress=True)
    share = (found == questions.items[:, None]).any(axis=1).mean()
    print(f"{len(questions)} questions, beam {ranker.beam_width}, targets among the candidates: {share:.4f}", flush=True)
    results = []
    for votes in rows:
        ranker.fusion, ranker.name = None, " + ".join(["beam", *votes])
        if votes:
            config = FusionConfig(votes, str(arguments.scorer) if "one-pass" in votes else "")
            voting = scorer if "one-pass" in votes else None
            most = recipe.training.validation_users
            ranker.fusion, best = choose_fusion(ranker, split, texts, config, masked, most, recipe.seed, voting)
            print(f"{ranker.name}: validation {best:.4f}, {ranker.fusion.chosen}", flush=True)
        results.append(evaluate(ranker, questions, exclude_seen=(masked,)))
    print(report_table(results))
    protocol = next(iter(results[0].metrics))
    print(comparison_table(compare(results, protocol=protocol, reference="beam")))


if __name__ == "__main__":
    main()
