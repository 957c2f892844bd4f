"""Each file that a command writes is of one kind, and verify says of each kind which command makes it again.

The slow tests run every command that writes into a store, lose or damage a file of each kind, and follow the advice.
"""

import importlib
import json
import re
import shutil
import zlib
from pathlib import Path

import pytest

from memscore.store import rebuild_advice
from memscore.store.file_formats import check_picture
from memscore.store.file_kinds import FILE_KINDS, find_kind
from memscore.store.parquet import CorruptFile
from memscore.store.store import Store
from memscore.store.verify import quarantine_damaged, verify
from tests.conftest import ONE_PIXEL
from unlearn.experiments.registry import EXPERIMENTS

SERIAL = "--pool serial --device cpu"
FLAGS = {
    "memscore.estimate": "--data digits --train-limit 200 --validation 0.2 --epochs 2 --batch 20 --lr 0.1 --seed 7 "
    f"--originals 2 --models 16 --block 8 --clusters pilot --bank-events --evaluation-events {SERIAL} "
    "--proxies el2n holdout inversion inversion-gain --inversion-candidates 3 --inversion-iterations 2",
    "memscore.bank": "--near pixels",
    "memscore.influence": "--top 3 --pictures 1",
    "memscore.fidelity": "--draws 10",
    "memscore.attack": "--model {folder}/model.safetensors --arch mlp --device cpu",
    "unlearn.trial": "--algorithm finetune --forget random --size 12 --seeds 8 --set epochs=1 --measures klom "
    f"{SERIAL}",
    "unlearn.sweep": "--forget random --size 12 --budget 2 --algorithms finetune --set finetune.epochs=1 --dynamics "
    f"--variants vanilla shuffle --parts 2 --tunings 1 --tune-seeds 1 --seeds 1 --name searched {SERIAL}",
    "unlearn.experiment": f"--size 12 --budget 1 --tunings 1 --tune-seeds 1 --seeds 1 {SERIAL}",
}
"""Command -> the flags that the store is filled with, which the advice leaves to the user."""
SCENARIO = f"--algorithm finetune --forget canaries --size 20 --seeds 1 --set epochs=1 {SERIAL}"

UNSEEN = {
    "progress.json",  # the next run writes it
    "data.json",  # the next estimate writes it
    "events/KEY-rescored.parquet",  # these nine are results that no other file names
    "reports/influence_NAME.png",
    "reports/near_duplicates.parquet",
    "reports/audit-NAME.parquet",
    "reports/audit-NAME.json",
    "trials/KEY-said.parquet",
    "trials/KEY-cost.parquet",
    "trials/KEY-population.json",
    "trials/measures.json",  # the next trial writes it
    "attempts/SEARCH/VALUES.json",
    *("lock", "run.log"),  # nothing is lost with these
}
"""Kinds of files whose loss cannot be seen."""


def run(command, store, folder, more=None):
    """Run a command on the store with the flags that it was filled with; its exit code."""
    flags = (FLAGS[command] if more is None else more).format(folder=folder).split()
    where = ["--store", str(store)] if command == "memscore.estimate" else [str(store)]
    name = {"unlearn.experiment": ["five-steps"], "memscore.bank": ["duplicates"]}.get(command, [])
    return importlib.import_module(command).main([*name, *where, *flags])


def list_paths(store):
    return sorted(path.relative_to(store).as_posix() for path in Path(store).rglob("*") if path.is_file())


def find_examples(store):
    """Pattern -> the first file of that kind that a command of its own makes."""
    paths = [path for path in list_paths(store) if not path.startswith("scenarios/")]
    return {kind.pattern: next((p for p in paths if kind.regex.fullmatch(p)), None) for kind in FILE_KINDS}


@pytest.fixture(scope="module")
def filled(tmp_path_factory):
    """A store with a file of every kind, but failures and data that were moved away."""
    folder = tmp_path_factory.mktemp("filled")
    store = folder / "store"
    assert run("memscore.estimate", store, folder) == 0
    key = json.loads((store / "receipts/original-00000.json").read_text())["key"]
    shutil.copy(store / f"weights/{key}.safetensors", folder / "model.safetensors")
    for command in list(FLAGS)[1:]:
        assert run(command, store, folder) == 0, command
    assert run("unlearn.trial", store, folder, SCENARIO) == 0
    return store


@pytest.fixture
def copy(filled, tmp_path):
    shutil.copy(filled.parent / "model.safetensors", tmp_path)
    return shutil.copytree(filled, tmp_path / "store")


def flip_last_bits(path):
    """Change bytes that every check reads."""
    content = bytearray(path.read_bytes())
    for at in (len(content) // 2, len(content) // 2 + 1):
        content[at] ^= 1
    path.write_bytes(content)


def list_problems(result):
    return {**result.missing, **result.stale, **result.advice}


def list_commands(hint):
    """The commands that a hint names."""
    return re.findall(r"`python -m ([\w.]+)[^`]*`|or the ([\w.]+)|or (unlearn\.\w+) that", hint)


def run_advised_commands(hints, store):
    """Run each command that the hints name, in the order in which a store is filled."""
    named = {name for hint in hints for found in list_commands(hint) for name in found if name}
    assert named
    for command in FLAGS:
        if command in named:
            assert run(command, store, store.parent) == 0, command
    if any("scenarios/" in path for path in list_paths(store)) and "unlearn.trial" in named:
        assert run("unlearn.trial", store, store.parent, SCENARIO) == 0


def test_the_experiment_that_an_advice_names_is_one():
    text = Path(rebuild_advice.__file__).read_text()
    named = re.findall(r"python -m unlearn\.experiment ([a-z-]+) ", text)
    assert named
    assert set(named) <= set(EXPERIMENTS)


@pytest.mark.slow
def test_every_file_is_of_one_kind_and_every_kind_is_there(filled):
    counts = {
        path: [k.pattern for k in FILE_KINDS if k.regex.fullmatch(re.sub(r"^scenarios/[^/]+/", "", path))]
        for path in list_paths(filled)
    }
    assert {path: kinds for path, kinds in counts.items() if len(kinds) != 1} == {}
    kinds = {kinds[0] for kinds in counts.values()}
    assert {kind.pattern for kind in FILE_KINDS} - kinds == {"failures/NAME.json", "damaged/NAME", "run.old.log"}
    result = verify(Store.open(filled))
    assert (result.damaged, result.missing, result.stale) == ({}, {}, {})
    assert result.verified == sum(find_kind(path).format.check is not None for path in counts)


@pytest.mark.slow
def test_the_loss_of_a_file_of_each_kind_is_named_with_a_command(filled):
    seen = {}
    for pattern, path in find_examples(filled).items():
        if path is None or pattern == "manifest.json":
            continue
        content = (filled / path).read_bytes()
        (filled / path).unlink()
        problems = list_problems(verify(Store.open(filled)))
        (filled / path).write_bytes(content)
        seen[pattern] = (path in problems, bool(problems))
        assert all("`python -m " in hint for hint in problems.values())
    assert {pattern for pattern, (_, anything) in seen.items() if not anything} == UNSEEN
    elsewhere = {pattern for pattern, (itself, anything) in seen.items() if anything and not itself}
    # A lost receipt of an original, oracle or proxy shows in what was stored with it.
    assert elsewhere == {"receipts/MODEL.json", "receipts/oracle-ID.json", "receipts/KEY-PROXY.json"}


@pytest.mark.slow
def test_damage_of_a_file_of_each_kind_is_named_with_a_command(filled):
    for pattern, path in find_examples(filled).items():
        if path is None or pattern in {"lock", "run.log", "manifest.json"}:
            continue
        content = (filled / path).read_bytes()
        flip_last_bits(filled / path)
        result = verify(Store.open(filled))
        (filled / path).write_bytes(content)
        assert path in result.damaged, path
        assert "`python -m " in result.advice[path], path


@pytest.mark.slow
@pytest.mark.parametrize("how", ["damaged", "missing"])
def test_the_advice_makes_a_store_whole_that_lost_a_file_of_each_kind(copy, how):
    left_out = {"manifest.json", "lock", "run.log", "arms/ARM.json"}
    if how == "missing":  # one file of those that imply each other stays
        left_out |= {*UNSEEN, "reports/lorenz_SUFFIX.png", "sweeps/NAME/chosen.json", "experiments/NAME/figure.png"}
    examples = [path for pattern, path in find_examples(copy).items() if path and pattern not in left_out]
    inner = next(path for path in list_paths(copy) if re.match(r"scenarios/[^/]+/outputs/", path))
    for path in (*examples, inner):
        if how == "damaged":
            flip_last_bits(copy / path)
        else:
            (copy / path).unlink()
    result = verify(Store.open(copy))
    quarantine_damaged(Store.open(copy).folder, result)
    run_advised_commands(list_problems(result).values(), copy)
    again = verify(Store.open(copy))
    assert (again.damaged, again.missing, again.stale) == ({}, {}, {})
    assert [path for path in (*examples, inner) if not (copy / path).exists()] == []


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["weights", "outputs", "events", "receipts"])
def test_files_of_an_oracle_are_made_again_by_the_trial_and_not_by_estimate(copy, kind):
    name = next(path for path in list_paths(copy) if path.startswith("receipts/oracle-"))
    key = json.loads((copy / name).read_text())["key"]
    path = {"receipts": name, "weights": f"weights/{key}.safetensors"}.get(kind, f"{kind}/{key}.parquet")
    content = (copy / path).read_bytes()
    (copy / path).unlink()
    result = verify(Store.open(copy))
    hints = list_problems(result)
    assert hints
    assert all("unlearn.trial" in hint and "memscore.estimate" not in hint for hint in hints.values())
    quarantine_damaged(Store.open(copy).folder, result)
    run_advised_commands(hints.values(), copy)
    assert verify(Store.open(copy)).missing == {}
    assert kind == "receipts" or (copy / path).read_bytes() == content


def test_patterns_of_two_kinds_share_no_path():
    key = "0123456789abcdef" * 4
    paths = {
        f"events/{key}-inversion-01234567-000064.parquet": "events/KEY-PROXY.parquet",
        f"events/{key}-evaluation.parquet": "events/KEY-evaluation.parquet",
        f"events/{key}.parquet": "events/KEY.parquet",
        "events/exact-k0.500-b8-00015.parquet": "events/MODEL.parquet",
        f"receipts/{key}-inversion-01234567-000064.json": "receipts/KEY-PROXY.json",
        "receipts/oracle-0123456789012345.json": "receipts/oracle-ID.json",
        "receipts/original-00000.json": "receipts/MODEL.json",
        f"trials/{key}-said.parquet": "trials/KEY-said.parquet",
        "scenarios/canaries-s0/trials/" + f"{key}.parquet": "trials/KEY.parquet",
    }
    for path, pattern in paths.items():
        kind = find_kind(path)
        assert kind is not None
        assert kind.pattern == pattern
        inner = path.removeprefix("scenarios/canaries-s0/")
        assert sum(bool(kind.regex.fullmatch(inner)) for kind in FILE_KINDS) == 1


def test_each_row_says_what_a_user_needs():
    assert len({kind.pattern for kind in FILE_KINDS}) == len(FILE_KINDS)
    for kind in FILE_KINDS:
        assert kind.content.endswith("."), kind.pattern
        assert (kind.format.check is None) == (kind.pattern in {"lock", "damaged/NAME", "run.log", "run.old.log"})


@pytest.mark.parametrize("cut", [0, 4, 20, len(ONE_PIXEL) - 12, len(ONE_PIXEL) - 1])
def test_a_picture_that_was_cut_is_damaged(cut):
    check_picture(ONE_PIXEL)
    with pytest.raises(CorruptFile):
        check_picture(ONE_PIXEL[:cut])


def test_each_changed_byte_of_a_picture_is_found():
    assert zlib.crc32(b"IEND") == 0xAE426082
    for at in range(len(ONE_PIXEL)):
        content = bytearray(ONE_PIXEL)
        content[at] ^= 1
        with pytest.raises(CorruptFile):
            check_picture(bytes(content))
