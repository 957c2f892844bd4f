"""RUM's entanglement experiment: end to end on a bank of 8 small models, and its verdicts on made rows."""

import numpy as np
import pytest

from memscore.store.verify import verify
from tests.fixtures import tiny
from unlearn.experiments import entanglement
from unlearn.experiments.entanglement import BUCKETS, LEVELS, MATCHED, MEAN_SCORE, name_bucket, summarize_scores

PARTS = (*LEVELS, *MATCHED, *(name_bucket(level) for level in BUCKETS))


@pytest.fixture(scope="module")
def experiment(tmp_path_factory):
    store = tiny.make_bank(tmp_path_factory.mktemp("entanglement"), models=8)
    return tiny.run_experiment("entanglement", store, size=12, algorithms=("finetune", "salun"), seeds=1)


def test_every_part_is_judged_and_kept(experiment):
    prepared, result, path = experiment
    assert set(result.results) == set(PARTS)
    for part in (*LEVELS, *MATCHED):
        assert {row["contender"] for row in result.results[part]} == {"oracle", "original", "finetune", "salun"}
    assert {row["contender"] for row in result.results[name_bucket("low")]} == {"oracle", "original"}
    assert not result.incomplete
    stored = prepared.store.read_table(f"{path}/rows.parquet")
    assert {"part", "entanglement_original", MEAN_SCORE} <= set(stored.column_names)
    for picture in ("figure", "embeddings"):
        assert bytes(prepared.store.folder.read(f"{path}/{picture}.png"))[:4] == b"\x89PNG"
    verdict = verify(prepared.store)
    assert not verdict.damaged
    assert not verdict.missing


def test_sets_at_equal_score_have_its_mean_in_common_and_buckets_do_not(experiment):
    _, result, _ = experiment
    mean = {part: rows[0][MEAN_SCORE] for part, rows in result.results.items()}
    assert abs(mean["matched low"] - mean["matched high"]) <= 2 / 12  # memorization lies within -1 and 1
    assert mean[name_bucket("low")] < mean[name_bucket("medium")] < mean[name_bucket("high")]
    assert all(row["entanglement_original"] > 0 for rows in result.results.values() for row in rows)


def test_the_distribution_in_a_set_is_that_of_its_defined_scores():
    values = np.array([0.0, np.nan, 0.4, 0.1, 9.0, 0.2, 0.3])
    result = summarize_scores(values, (0, 1, 2, 3, 5, 6))
    assert result[MEAN_SCORE] == pytest.approx(0.2)
    assert [result[f"score_{share}"] for share in ("0.00", "0.25", "0.50", "0.90", "1.00")] == pytest.approx([
        0,
        0.1,
        0.2,
        0.36,
        0.4,
    ])
    assert all(np.isnan(value) for value in summarize_scores(values, (1,)).values())


def test_every_row_knows_the_distribution_in_its_set(experiment):
    _, result, _ = experiment
    ends = {
        part: (rows[0]["score_0.00"], rows[0][MEAN_SCORE], rows[0]["score_1.00"])
        for part, rows in result.results.items()
    }
    assert all(lowest <= mean <= highest for lowest, mean, highest in ends.values())
    assert ends[name_bucket("low")][2] <= ends[name_bucket("high")][0]  # 12 lowest and 12 highest of 160


def test_buckets_tune_nothing(experiment):
    prepared, result, _ = experiment
    assert result.cost["attempts"] == len([*LEVELS, *MATCHED]) * 2 + len(BUCKETS)
    assert all(config.budget == 1 for config in prepared.experiment.make_sweeps(prepared.config).values())


def make_results(low, high, matched, es):
    """ToW of finetune and salun in the partitions, (low, high) each; ES of the three buckets."""
    results = {}
    for part, place in (("low", 0), ("medium", 0), ("high", 1)):
        values = {"finetune": low[place], "salun": high[place]}
        results[part] = [
            *(row for name, tow in values.items() for row in tiny.make_rows(name, tow_test=tow)),
            *tiny.make_rows("original", "", "", tow_test=0.9 - place * 0.2, entanglement_original=10 + 100 * place),
        ]
    for part, tow in zip(MATCHED, matched, strict=True):
        results[part] = [
            *(row for name in ("finetune", "salun") for row in tiny.make_rows(name, tow_test=tow)),
            *tiny.make_rows("original", "", "", tow_test=tow, entanglement_original=10 if part == MATCHED[0] else 50),
        ]
    for level, value in zip(BUCKETS, es, strict=True):
        results[name_bucket(level)] = tiny.make_rows("original", "", "", tow_test=1, entanglement_original=value)
    return results


def test_verdicts():
    claims = entanglement.check_claims(
        make_results((0.9, 0.8), (0.9, 0.5), (0.7, 0.7), (200, 300, 90)), tiny.make_config("finetune", "salun")
    )
    assert tiny.list_verdicts(claims, "has a higher ES than the low one") == ["holds"]
    assert tiny.list_verdicts(claims, "finetune: ToW is higher at low ES") == ["holds", "undecided"]
    assert tiny.list_verdicts(claims, "salun: ToW is higher at low ES") == ["holds", "undecided"]
    assert tiny.list_verdicts(claims, "draw labels fall more") == ["holds", "undecided"]
    assert tiny.list_verdicts(claims, "higher ES than the high partition") == ["holds", "holds", "fails"]
    assert tiny.list_verdicts(claims, "higher ES than what has a high one") == ["holds", "holds"]


def test_verdicts_the_other_way():
    claims = entanglement.check_claims(
        make_results((0.6, 0.9), (0.9, 0.9), (0.8, 0.5), (90, 90, 90)), tiny.make_config("finetune", "salun")
    )
    assert tiny.list_verdicts(claims, "finetune: ToW is higher at low ES") == ["fails", "holds"]
    assert tiny.list_verdicts(claims, "salun: ToW is higher at low ES") == ["undecided", "holds"]
    assert tiny.list_verdicts(claims, "higher ES than the high partition") == ["fails"] * 3
    assert tiny.list_verdicts(claims, "higher ES than what has a high one") == ["undecided"] * 2


def test_only_one_kind_of_algorithm_compares_no_kinds():
    claims = entanglement.check_claims(
        make_results((0.9, 0.8), (0.9, 0.5), (0.7, 0.7), (1, 1, 1)), tiny.make_config("finetune")
    )
    assert tiny.list_verdicts(claims, "draw labels") == []


def test_blind_alone_is_judged_by_the_blind_choice():
    rows = make_results((0.9, 0.8), (0.9, 0.5), (0.7, 0.7), (1, 1, 1))
    blind = {part: [row | {"select": row["select"] and "blind"} for row in own] for part, own in rows.items()}
    claims = entanglement.check_claims(blind, tiny.make_config("finetune", select="blind"))
    assert tiny.list_verdicts(claims, "finetune: ToW is higher at low ES")[0] == "holds"
