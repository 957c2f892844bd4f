"""Records that name stored files hash as in 0.1.0, also after a field with a default is added to one of them."""

import json
from dataclasses import field, make_dataclass, replace

import pytest

from memscore.pipeline.config import build_recipe_record
from memscore.store.json_records import SINCE, hash_record, omit_new_defaults
from memscore.training.recipes import RECIPES, Recipe
from tests.fixtures.record_hashes import CONFIGS, PINNED, compute_hashes, list_fields
from unlearn.algorithms.finetune import FineTuneConfig
from unlearn.meta.rsu import RsuSchedule

ADVICE = (
    "give a new field of a hashed config metadata={SINCE: version}, see memscore.store.json_records.omit_new_defaults; "
    "a deliberate change of results counts up a version, and never edits a pinned hash"
)


def test_every_record_of_0_1_0_has_its_hash():
    pinned, now = json.loads(PINNED.read_text())["hashes"], compute_hashes()
    assert {name: now.get(name) for name in pinned} == pinned, ADVICE


def test_no_row_search_or_sweep_of_0_1_0_is_used_again_and_those_of_now_have_their_hash():
    """Algorithms took other numbers of steps then; what hashes alike would be pooled, or not run again."""
    pinned, now = json.loads(PINNED.read_text()), compute_hashes()
    assert {name: now.get(name) for name in pinned["trials"]} == pinned["trials"], ADVICE
    assert pinned["trials"].keys() == pinned["ended"].keys()
    assert not [name for name, value in pinned["ended"].items() if now[name] == value]


def test_every_field_without_a_version_is_one_of_0_1_0():
    pinned, now = json.loads(PINNED.read_text())["fields"], list_fields()
    assert {name: now.get(name) for name in pinned} == pinned, ADVICE


@pytest.mark.parametrize("config", [Recipe(epochs=2, batch=8, lr=0.1), FineTuneConfig(), RsuSchedule()])
def test_a_field_that_is_added_changes_the_hash_only_where_it_is_set(config):
    added = {
        "ema": (float, field(default=0.5, metadata={SINCE: "0.2"}), 0.9),
        "layers": (tuple, field(default_factory=tuple, metadata={SINCE: "0.2"}), (1, 2)),
    }
    later = make_dataclass(
        "Later",
        [(name, kind, option) for name, (kind, option, _) in added.items()],
        bases=(type(config),),
        frozen=True,
        kw_only=True,
    )(**vars(config))
    before = hash_record(omit_new_defaults(config))
    assert hash_record(omit_new_defaults(later)) == before
    for name, (_, _, value) in added.items():
        changed = replace(later, **{name: value})
        assert omit_new_defaults(changed) == omit_new_defaults(config) | {name: value}
        assert hash_record(omit_new_defaults(changed)) != before


def test_a_recipe_with_an_added_field_is_read_back_from_the_record_of_before():
    record = build_recipe_record(RECIPES["digits"])
    assert "source" not in record
    assert build_recipe_record(Recipe(**json.loads(json.dumps(record)))) == record


def test_the_pinned_configs_are_those_of_every_algorithm():
    assert set(json.loads(PINNED.read_text())["fields"]) <= set(CONFIGS)
