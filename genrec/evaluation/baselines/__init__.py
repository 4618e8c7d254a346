"""The baselines by name: what every model must beat. One file per idea, all of them rankers (`genrec/evaluation/base.py`).

    baseline = BASELINES["ease"](seed=0).fit(split.train, len(catalogue))

Those of `NEED_TEXTS` are fitted on the texts of the catalogue, the others on its size. Those of `TRAINED` are networks, and
take validation questions too, to stop on.
"""

from collections.abc import Callable, Iterable
from dataclasses import replace

from genrec.data.interactions import Histories
from genrec.evaluation.base import Baseline
from genrec.evaluation.baselines.ease import EASE, check_size
from genrec.evaluation.baselines.factors import ALS, BPR, need_implicit
from genrec.evaluation.baselines.floor import CooccurrenceTfidf
from genrec.evaluation.baselines.neighbours import ItemKNN, TextNeighbours
from genrec.evaluation.baselines.popularity import Popularity, RecentPopularity, RepeatLast, check_times
from genrec.evaluation.baselines.sequence_ranker import BSAREC, SASREC, SequenceRanker

BASELINES: dict[str, Callable[[int], Baseline]] = {
    Popularity.name: lambda seed: Popularity(),
    RecentPopularity.name: lambda seed: RecentPopularity(),
    RepeatLast.name: lambda seed: RepeatLast(),
    CooccurrenceTfidf.name: lambda seed: CooccurrenceTfidf(),
    ItemKNN.name: lambda seed: ItemKNN(),
    TextNeighbours.name: lambda seed: TextNeighbours(),
    EASE.name: lambda seed: EASE(),
    ALS.name: lambda seed: ALS(seed=seed),
    BPR.name: lambda seed: BPR(seed=seed),
}
TRAINED: dict[str, Callable[[int], SequenceRanker]] = {
    "sasrec": lambda seed: SequenceRanker(replace(SASREC, seed=seed)),
    "bsarec": lambda seed: SequenceRanker(replace(BSAREC, seed=seed)),
}
NEED_TEXTS = (CooccurrenceTfidf.name, TextNeighbours.name)


def check_baselines(names: Iterable[str], train: Histories, items: int) -> None:
    """Raise now what fitting these baselines would raise, perhaps after hours of other work: `DataError` for what the data
    cannot give, `MissingDependencyError` for a package that is not there.
    """
    for name in names:
        if name == RecentPopularity.name:
            check_times(train)
        elif name == EASE.name:
            check_size(items)
        elif name in (ALS.name, BPR.name):
            need_implicit(name)
