"""Messages of commands about banks that are small, imported, unfinished, read-only or given too large options."""

import shutil

import numpy as np
import pytest

from memscore.pipeline.precision import PrecisionForecast
from memscore.proxies.registry import require_validation_images, select_proxies
from memscore.store.filesystem import Folder
from memscore.store.remote import StoreUnavailable, WriteFailed, retry
from memscore.store.store import Store
from memscore.subsets.clustering import count_models_in_partial_blocks
from tests.fixtures.command import SMALL, ended, here, refused, start

pytestmark = pytest.mark.usefixtures("home")


def test_all_proxies_without_validation_are_refused_with_those_that_can_be():
    with pytest.raises(ValueError, match=r"holdout fine-tunes .*by name \(--proxies .*aum el2n.*\), use a --val"):
        require_validation_images(select_proxies(["all"]), 0)


def test_proxies_without_a_name_are_refused_with_the_list_of_them(tmp_path, capsys):
    for flags in (f"{SMALL} --proxies --store {tmp_path / 'bank'}", f"{SMALL} --store {tmp_path / 'bank'} --proxies"):
        output = refused(*here(flags, capsys))
        assert "parsing --proxies: it has no value; there are holdout, holdout-test," in output
        assert "inversion-gain, all, none; or leave it out" in output
    assert not (tmp_path / "bank").exists()


def test_an_unreachable_cluster_is_refused_before_the_store_is_begun(tmp_path, capsys):
    line = refused(*here(f"{SMALL} --address 127.0.0.1:1 --store {tmp_path / 'bank'}", capsys))
    assert "no Ray cluster answers at 127.0.0.1:1" in line
    assert not (tmp_path / "bank").exists()


@pytest.mark.ray
def test_a_cluster_that_refuses_finds_no_store_begun(tmp_path, ray_cluster, capsys):
    import ray

    flags = f"{SMALL} --address {ray.get_runtime_context().gcs_address} --store {tmp_path / 'bank'}"
    wrong = {"RAY_AUTH_TOKEN": "f" * 64}
    assert "refuses the token, or wants one" in refused(*ended(start(tmp_path, flags, **wrong)))
    assert "no node of the Ray cluster has a GPU" in refused(*here(f"{flags} --device cuda", capsys))
    assert not (tmp_path / "bank").exists()


def read_only():
    raise OSError(30, "Read-only file system")


@pytest.mark.parametrize(
    ("path", "kept"),
    [
        ("/bank/reports/fidelity_k0.500.json", "stored files are kept"),
        ("/bank/scores.parquet", "stored files are kept"),
        ("/bank/shards/x.parquet", "finished models are kept"),
    ],
)
def test_a_command_that_trains_nothing_speaks_of_no_models(path, kept):
    with pytest.raises(
        WriteFailed, match=f"^cannot write {path}: Read-only file system; {kept}: make the store writable, and give the"
    ):
        retry(read_only, path, 300)


def test_whoever_only_reads_hears_of_no_run_that_stops(caplog):
    """The status of a store whose server is away: the driver's words would say that its run has ended."""
    url = "s3://key:hush@bank/run?endpoint_override=http%3A%2F%2F127.0.0.1%3A1&region=x"
    folder = Folder.from_url(url)
    with pytest.raises(StoreUnavailable) as lost:
        folder.exists("manifest.json", retry_s=2)
    messages = [*caplog.messages, str(lost.value)]
    for line in messages:
        assert line.startswith("cannot read s3://bank/run/manifest.json: ")
        assert "hush" not in line
        assert "the run" not in line.replace("bank/run", "")
    assert "then this command stops. Bring its server back, and it goes on; stored files are kept" in messages[0]
    assert messages[-1].endswith("; stored files are kept: bring its server back, and give the same command again")


def test_models_of_blocks_that_are_not_whole_are_counted():
    assert (
        count_models_in_partial_blocks(range(16), 8),
        count_models_in_partial_blocks(range(11), 8),
        count_models_in_partial_blocks(range(5), 1),
    ) == (0, 3, 0)


def test_an_influence_says_that_a_block_is_unfinished(small, tmp_path, capsys):
    from memscore import influence

    shutil.copytree(small, tmp_path / "bank")
    store = Store.open(tmp_path / "bank")
    assert influence.main([store.url, "--pictures", "0"]) == 0
    assert "unfinished" not in capsys.readouterr().out
    store.folder.remove("shards/exact-k0.500-b8-00015.parquet")
    assert influence.main([store.url, "--pictures", "0"]) == 0
    assert "15 models of exact-k0.500-b8, 7 of them in unfinished blocks, which help less" in capsys.readouterr().out


def test_an_imported_bank_of_one_model_gets_no_advice_on_training(tmp_path, capsys, recwarn):
    from memscore import bank, fidelity

    rng = np.random.default_rng(0)
    np.save(tmp_path / "member.npy", np.ones((1, 50), bool) & (rng.random((1, 50)) < 0.5))
    np.save(tmp_path / "correct.npy", rng.random((1, 50)) < 0.5)
    arguments = ["import", "--member", f"{tmp_path}/member.npy", "--correct", f"{tmp_path}/correct.npy"]
    assert bank.main([*arguments, f"{tmp_path}/bank"]) == 0
    output = capsys.readouterr().out
    assert "memorization means little below 0.95" in output
    assert "--epochs" not in output
    assert not [warning for warning in recwarn if "positive values" in str(warning.message)]
    fidelity.main([f"{tmp_path}/bank", "--draws", "10"])
    assert "training takes 0.0 s" not in capsys.readouterr().out


def test_a_plan_never_names_fewer_models_than_it_was_made_from():
    from memscore.pipeline.precision import MeasuredPrecision, OutcomeVariance
    from memscore.subsets.designs import Arm

    spread = OutcomeVariance(inside=0.001, out=0.001)
    forecast = PrecisionForecast(
        arm=Arm(design="exact", keep=0.5, block=2),
        measured=MeasuredPrecision(models=32, counts_rmse=0.01, blend=None, variance=spread),
        stored=32,
        seconds=1.0,
        workers=1,
        bytes=10.0,
    )
    assert forecast.compute_requirement(0.5).models == 32
