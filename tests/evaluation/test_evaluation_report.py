"""Evaluations on disk, compared, on a leaderboard and as a page."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from genrec.data.interactions import Histories
from genrec.data.splits import Targets
from genrec.errors import BundleError, DataError, SettingError
from genrec.evaluation.compare import best_trades, compare, comparison_table
from genrec.evaluation.evaluate import Result, evaluate
from genrec.evaluation.leaderboard import add_to_leaderboard, leaderboard_table, read_leaderboard
from genrec.evaluation.leaks import Leak
from genrec.evaluation.lists import ListContext
from genrec.evaluation.page import comparison_html, html, write_report
from genrec.evaluation.probes import Probe
from genrec.evaluation.report import Report, examples, full_report
from genrec.evaluation.saved import Evaluation, read_evaluation, side_by_side

ITEMS, USERS = 30, 200


class Oracle:
    """Puts the answer first for a share of the users, and otherwise the same items for all."""

    def __init__(self, name: str, questions: Targets, share: float) -> None:
        self.name, self.share = name, share
        self.answers = dict(zip(questions.histories.user_ids, questions.items, strict=True))

    def rank(self, histories: Histories, k: int, exclude_seen: bool) -> tuple[np.ndarray, np.ndarray]:
        rows = np.tile(np.arange(k), (len(histories), 1))
        for line, user in zip(rows, histories.user_ids, strict=True):
            if int(user) < self.share * USERS:
                line[1:] = [item for item in line if item != self.answers[user]][: k - 1]
                line[0] = self.answers[user]
        return rows, np.zeros(rows.shape, np.float32)


@pytest.fixture(scope="module")
def questions() -> Targets:
    random = np.random.default_rng(0)
    lists = [random.permutation(20)[: random.integers(1, 9)] for _ in range(USERS)]
    return Targets(Histories.from_lists(lists), random.integers(20, ITEMS, USERS))


@pytest.fixture(scope="module")
def evaluation(questions: Targets) -> Evaluation:
    results = [
        evaluate(Oracle(name, questions, share), questions, progress=False)
        for name, share in (("ours", 0.5), ("good", 0.7), ("bad", 0.1), ("same", 0.5))
    ]
    return Evaluation(results, np.array([f"item {row}" for row in questions.items], object), {"split": "leave-one-out"})


@pytest.fixture(scope="module")
def report(evaluation: Evaluation, questions: Targets) -> Report:
    random = np.random.default_rng(1)
    titles = [f"<b>title {row}</b>" for row in range(ITEMS)]
    context = ListContext(
        random.integers(0, 9, ITEMS), random.normal(size=(ITEMS, 4)), np.array(["a", "b", ""] * 10, object),
        np.array(["x", "y"] * 15, object),
    )  # fmt: skip
    leak = Leak("event-twice", 3, 200, "for example user '<i>'", "Drop duplicate rows.")
    return full_report(evaluation, questions, context, titles, np.arange(ITEMS)[:, None] // 2, [leak], "masked")


def test_what_is_saved_can_be_read_and_compared_as_if_it_had_just_been_measured(evaluation: Evaluation, tmp_path: Path) -> None:
    evaluation.save(tmp_path / "run")
    read = read_evaluation(tmp_path / "run")
    assert read.questions == evaluation.questions
    assert read.to_dict() == evaluation.to_dict()
    assert comparison_table(compare(read.results)) == comparison_table(compare(evaluation.results))


def test_files_of_two_evaluations_or_of_something_else_are_refused(evaluation: Evaluation, tmp_path: Path) -> None:
    evaluation.save(tmp_path / "run")
    replace(evaluation, targets=evaluation.targets[::-1]).save(tmp_path / "other")
    (tmp_path / "other" / "evaluation.json").write_text((tmp_path / "run" / "evaluation.json").read_text())
    with pytest.raises(BundleError, match="not of one evaluation"):
        read_evaluation(tmp_path / "other")
    (tmp_path / "run" / "evaluation.json").write_text('{"format": 99}')
    with pytest.raises(BundleError, match="is not of format 1"):
        read_evaluation(tmp_path / "run")
    with pytest.raises(BundleError, match="holds no evaluation"):
        read_evaluation(tmp_path)
    twice = [evaluation.results[0]] * 2
    with pytest.raises(DataError, match="different names"):
        replace(evaluation, results=twice).save(tmp_path / "twice")


def test_models_stand_side_by_side_under_their_folders_and_baselines_once(evaluation: Evaluation, tmp_path: Path) -> None:
    other = replace(evaluation, results=[evaluation.results[1], evaluation.results[2]])
    results = side_by_side({tmp_path / "a": evaluation, tmp_path / "b": other})
    assert [result.name for result in results] == ["a", "b", "good", "bad", "same"]
    with pytest.raises(DataError, match="asked other questions"):
        side_by_side({tmp_path / "a": evaluation, tmp_path / "b": replace(evaluation, targets=evaluation.targets[::-1])})
    with pytest.raises(DataError, match="Two of the folders"):
        side_by_side({tmp_path / "a": evaluation, tmp_path / "x" / "a": other})


def test_a_comparison_tells_better_from_worse_and_from_nothing_shown(evaluation: Evaluation) -> None:
    rows = {row.name: row for row in compare(evaluation.results)}
    assert list(rows) == ["good", "ours", "same", "bad"], "best first; equal ones in the order given"
    assert {name: row.verdict for name, row in rows.items()} == {
        "good": "better", "ours": "reference", "same": "no difference shown", "bad": "worse",
    }  # fmt: skip
    difference = rows["good"].difference
    assert difference is not None
    assert difference.low <= difference.mean <= difference.high
    assert difference.mean == pytest.approx(rows["good"].estimate.mean - rows["ours"].estimate.mean)
    assert rows["same"].p == 1
    assert rows["same"].detectable == 0, "it never differs"
    turned = {row.name: row for row in compare(evaluation.results, reference="good")}
    assert turned["ours"].verdict == "worse"
    with pytest.raises(SettingError, match="reference"):
        compare(evaluation.results, reference="nobody")


def test_results_of_other_questions_cannot_be_compared(evaluation: Evaluation) -> None:
    other: Result = replace(evaluation.results[1], users=evaluation.results[1].users[::-1])
    with pytest.raises(DataError, match="were not asked the same questions"):
        compare([evaluation.results[0], other])


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=8))
def test_nobody_beats_a_best_trade_on_both_counts(points: list[tuple[int, int]]) -> None:
    quality, cost = zip(*points, strict=True)
    found = best_trades(quality, cost)
    assert any(found)
    for (q, c), best in zip(points, found, strict=True):
        beaten = any(a >= q and b <= c and (a, b) != (q, c) for a, b in points)
        assert best == (not beaten)


def test_a_leaderboard_only_grows_and_shows_the_latest_of_each_name(evaluation: Evaluation, tmp_path: Path) -> None:
    board = tmp_path / "board.jsonl"
    add_to_leaderboard(board, evaluation, "shop")
    before = board.read_text()
    better = replace(evaluation, results=[replace(evaluation.results[1], name="ours"), *evaluation.results[1:]])
    add_to_leaderboard(board, better, "shop")
    assert board.read_text().startswith(before)
    entries = read_leaderboard(board)
    assert [entry["name"] for entry in entries[:4]] == ["shop", "good", "bad", "same"]
    table = leaderboard_table(entries)
    assert table.count("| shop ") == 1
    assert table.count("Questions ") == 1
    best = f"{better.results[0].metrics['masked']['ndcg@10'].mean:.4f}"
    assert best in next(line for line in table.splitlines() if line.startswith("| shop"))
    add_to_leaderboard(board, replace(evaluation, targets=evaluation.targets[::-1]), "shop")
    assert leaderboard_table(read_leaderboard(board)).count("Questions ") == 2, "other questions are another table"


def test_a_file_that_is_no_leaderboard_is_left_as_it_is(evaluation: Evaluation, tmp_path: Path) -> None:
    notes = tmp_path / "notes.txt"
    notes.write_text("buy milk\n")
    with pytest.raises(DataError, match="Line 1 of"):
        add_to_leaderboard(notes, evaluation, "shop")
    assert notes.read_text() == "buy milk\n"
    with pytest.raises(DataError, match="cannot be read"):
        read_leaderboard(tmp_path)


def test_a_report_has_slices_lists_leaks_and_examples_and_is_json(report: Report, tmp_path: Path) -> None:
    assert list(report.slices) == ["ours", "good"], "the model and the best other one"
    assert list(report.lists) == ["ours", "good", "bad", "same"]
    assert report.code_level is not None
    assert report.code_level >= report.evaluation.results[0].metrics["masked"]["ndcg@10"].mean
    page = write_report(report, tmp_path / "told", "shop")
    told = json.loads((tmp_path / "told" / "evaluation.json").read_text())
    assert {"results", "compared", "slices", "lists", "leaks", "code_level_ndcg", "questions", "about"} <= set(told)
    assert page.read_text(encoding="utf-8") == html(report, "shop")


def test_examples_are_what_they_say(evaluation: Evaluation, questions: Targets) -> None:
    titles = [str(row) for row in range(ITEMS)]
    result = evaluation.results[0]
    for hit in (True, False):
        found = examples(result, questions, titles, "masked", hit)
        assert len(found) == 4
        for one in found:
            row = int(one.user)
            assert one.answer == str(questions.items[row])
            assert (one.place == 0) == hit == (one.list[0] == one.answer)
            assert one.history == [str(item) for item in questions.histories[row][-6:]]
            assert one.earlier + len(one.history) == len(questions.histories[row]) >= 3


def test_the_page_escapes_what_the_catalogue_holds_and_needs_nothing_from_elsewhere(report: Report) -> None:
    page = html(report, "<script>shop</script>")
    assert "<script" not in page
    assert "<b>title" not in page
    assert "&lt;b&gt;title" in page
    assert "user &#39;&lt;i&gt;&#39;" in page
    assert page.count("<svg") == 2
    assert 'src="' not in page
    assert 'href="http' not in page
    assert "ours is worse than the best other ranker, good" in page
    assert "leak</span> event-twice" in page


def test_a_model_measured_alone_has_a_page_too(evaluation: Evaluation, questions: Targets) -> None:
    alone = replace(evaluation, results=evaluation.results[:1])
    titles = [str(row) for row in range(ITEMS)]
    report = full_report(alone, questions, ListContext(np.ones(ITEMS)), titles, None, [], "masked")
    page = html(report, "shop")
    assert "ours was measured alone" in page
    assert "Nothing found" in page
    assert report.code_level is None


def test_gaps_between_groups_of_items_and_of_users_are_on_the_page_and_in_the_numbers(report: Report) -> None:
    page, told = html(report, "shop"), report.to_dict()
    assert told["largest_gaps"]["ours"]["category"] > 0
    assert page.count("best less worst") == sum(map(len, told["largest_gaps"].values()))
    for kind in ("category", "provider"):
        gap = told["lists"]["ours"][f"{kind}_gaps"]["largest_gap"]
        assert f'<td>{kind}: largest gap</td><td class="number">{gap:.3f}</td>' in page


def seeds_of(questions: Targets, shares: tuple[float, ...]) -> list[Result]:
    return [evaluate(Oracle("ours", questions, share), questions, progress=False) for share in shares]


def test_results_of_one_name_are_seeds_of_one_model_and_are_compared_by_their_mean(questions: Targets) -> None:
    other = evaluate(Oracle("other", questions, 0.2), questions, progress=False)
    seeds = seeds_of(questions, (0.4, 0.5, 0.6))
    rows = {row.name: row for row in compare([*seeds, other])}
    assert list(rows) == ["ours", "other"]
    ours = rows["ours"].estimate
    each = [result.metrics["masked"]["ndcg@10"].mean for result in seeds]
    assert (ours.seeds, ours.mean, ours.seed_deviation) == (
        3,
        pytest.approx(np.mean(each)),
        pytest.approx(np.std(each, ddof=1)),
    )
    difference = rows["other"].difference
    assert difference is not None
    assert difference.mean == pytest.approx(rows["other"].estimate.mean - ours.mean)
    assert rows["other"].estimate.seed_deviation is None
    assert [line.split("|")[-2].strip() for line in comparison_table(list(rows.values())).splitlines()[2:]] == [
        f"± {np.std(each, ddof=1):.4f}", "",
    ]  # fmt: skip
    assert "over seeds" in comparison_html(list(rows.values()), "NDCG@10")
    alone = compare([seeds[0], other])
    assert "seeds" not in comparison_table(alone)
    assert "over seeds" not in comparison_html(alone, "NDCG@10")


def test_any_cut_up_to_the_longest_list_can_be_compared(evaluation: Evaluation) -> None:
    [ours] = compare(evaluation.results[:1], "recall", 7)
    assert ours.estimate.mean == evaluation.results[0].per_question("masked", "recall", 7).mean()


def test_folders_are_pooled_under_one_name_but_no_fit_twice(evaluation: Evaluation, questions: Targets, tmp_path: Path) -> None:
    def fit(number: int) -> Evaluation:
        return replace(evaluation, results=seeds_of(questions, (0.4 + number / 10,)), about={"bundle": f"bundle {number}"})

    runs = {tmp_path / f"seed{number}": fit(number) for number in range(3)}
    other = {tmp_path / "other": evaluation}
    results = side_by_side(other | runs, {"ours": list(runs)})
    assert [result.name for result in results] == ["other", "ours", "ours", "ours", "good", "bad", "same"]
    for name, evaluations in (("other", other | runs), ("ours", {tmp_path / "ours": evaluation} | runs)):
        with pytest.raises(DataError, match=f"Two of the folders are called '{name}'"):
            side_by_side(evaluations, {name: list(runs)})
    with pytest.raises(DataError, match="'ours' pools the same fit twice"):
        side_by_side(runs | {tmp_path / "copy": fit(0)}, {"ours": [*runs, tmp_path / "copy"]})


def test_probes_are_on_the_page_and_in_the_numbers_where_they_were_asked_for(report: Report) -> None:
    probes = [Probe(name, "g", "the <last> item", "accuracy", value, 0.2, 9) for name, value in (("a", 0.7), ("b", np.nan))]
    probed = replace(report, probes=probes)
    assert "the &lt;last&gt; item" in html(probed, "shop")
    assert [probe["value"] for probe in probed.to_dict()["probes"]] == [0.7, None], "JSON has no NaN"
    assert "What user vectors hold" not in html(report, "shop")
    assert report.to_dict()["probes"] == []
