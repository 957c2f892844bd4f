"""What a run decides for a user who left it out: proxies, and models that fill the last block."""

from dataclasses import replace

import pytest

from memscore.pipeline.config import BankConfig, build_designs, resolve_proxies
from memscore.pipeline.runner import estimate, prepare_bank
from memscore.proxies.registry import select_proxies
from tests.fixtures.opened import open_bank
from tests.fixtures.sweeps import BANK
from tests.memscore.pipeline.test_jobs import InOrder


def test_holdout_retraining_is_the_default_and_the_default_experiments_refine_by_it(tmp_path):
    small = replace(BANK, train_limit=60, epochs=1, batch=10, block=2, models=2, originals=1, store=str(tmp_path / "s"))
    assert "holdout" in estimate(open_bank(small), InOrder()).table.column_names


@pytest.mark.parametrize(
    ("changes", "n_validation", "selected", "line"),
    [
        ({}, 2, ("holdout",), ""),
        ({}, 1, (), "this bank has 1"),
        ({"originals": 0}, 20, (), ""),
        ({"proxies": ("none",)}, 20, (), ""),
        ({"proxies": ("aum",)}, 0, ("aum",), ""),
    ],
)
def test_the_default_proxy_is_left_out_with_a_line_where_it_cannot_be_had(changes, n_validation, selected, line):
    config, lines = resolve_proxies(BankConfig(**changes), n_validation)
    assert select_proxies(config.proxies) == selected
    assert len(lines) == bool(line)
    assert line in "".join(lines)


def test_none_stands_alone():
    with pytest.raises(ValueError, match=r"--proxies none stands alone, got aum beside it"):
        BankConfig(proxies=("none", "aum"))


def test_a_rounded_number_of_models_is_said_and_is_what_is_trained(tmp_path):
    bank = prepare_bank(replace(BANK, models=15, store=str(tmp_path / "s")))
    assert bank.count == 16
    assert "--models 15 is rounded up to 16: exact-k0.500-b8 trains whole blocks of 8" in bank.notes
    assert not any("rounded" in note for note in prepare_bank(replace(BANK, store=str(tmp_path / "s"))).notes)


def test_a_number_that_only_five_digits_cannot_name_is_refused():
    with pytest.raises(ValueError, match=r"--models 99999 in whole blocks of 64 is 100032, at most 99999 .* use 99968"):
        build_designs(BankConfig(models=99_999))
