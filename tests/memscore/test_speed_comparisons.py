"""The comparisons of whole commands: with other tools, and with torch's own convolutions."""

import json
import sys
from types import SimpleNamespace

import pytest
import torch

from benchmarks import against_peers, cnn_end_to_end, plain_convolutions
from benchmarks.peers.task import Net
from benchmarks.timed_process import run_timed
from memscore.models import compiled_convolutions
from memscore.models.architectures import build_network


@pytest.mark.parametrize(
    ("arch", "layers", "widths"), [("mlp-16-8", "linear", (16, 8)), ("cnn-4-8", "convolution", (4, 8))]
)
def test_other_tools_get_the_network_of_memscore(arch, layers, widths):
    own = build_network(arch, (3, 9, 12), 10, 0)
    theirs = Net((3, 9, 12), layers, widths, 10)
    theirs.load_state_dict(dict(zip(theirs.state_dict(), own.state_dict().values(), strict=True)))
    images = torch.randn(5, 3, 9, 12)
    torch.testing.assert_close(theirs(images.flatten(1)), own(images))


def test_results_of_other_tools_and_tasks_are_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(against_peers, "RESULTS", tmp_path)
    against_peers.save_task("digits", {"memscore": 1, "plain": 2})
    against_peers.save_task("cnn", {"memscore": 3})
    against_peers.save_task("digits", {"memscore": 4, "art": 5})
    tasks = json.loads((tmp_path / "against_peers.json").read_text())["tasks"]
    assert tasks == {"digits": {"memscore": 4, "plain": 2, "art": 5}, "cnn": {"memscore": 3}}


def test_a_tool_that_failed_once_has_no_ratio():
    run = {"wall_s": 2.0, "cpu_s": 1.0, "test_accuracy": 0.9, "auc": None}
    twice = {**run, "wall_s": 4.0}
    assert against_peers.compared([twice], [run])["wall_s_over_memscore"]["median"] == 2.0
    assert against_peers.compared([twice, {"error": "no"}], [run, run]) == {"error": "no", "failed": 1, "n": 2}


def test_a_process_is_timed_with_its_own_processor_seconds(tmp_path):
    busy = "import time\nwhile time.process_time() < 0.3: pass\nprint(__import__('os').getcwd())"
    done, seconds = run_timed([sys.executable, "-c", busy], tmp_path)
    assert done.stdout.strip() == str(tmp_path)
    assert 0.3 <= seconds["cpu_s"] < 3
    assert seconds["wall_s"] >= 0.3


def test_ratios_are_within_pairs_and_of_all_seconds():
    pairs = [
        {"now": {"wall_s": 1.0, "cpu_s": 1.0}, "before": {"wall_s": 2.0, "cpu_s": 3.0}},
        {"before": {"wall_s": 12.0, "cpu_s": 3.0}, "now": {"wall_s": 3.0, "cpu_s": 1.0}},
    ]
    assert cnn_end_to_end.compare(pairs)["wall_s"]["before_over_now"] == {"n": 2, "median": 3.0, "min": 2.0, "max": 4.0}
    assert cnn_end_to_end.compute_total_ratio(pairs, "wall_s") == 3.5
    assert [cnn_end_to_end.take_turns(number)[0] for number in range(3)] == ["now", "before", "now"]


def test_a_bank_that_the_wrong_convolutions_trained_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(cnn_end_to_end, "Store", SimpleNamespace(open=lambda _: SimpleNamespace(folder=None)))
    monkeypatch.setattr(cnn_end_to_end, "count_engines", lambda _: {cnn_end_to_end.ENGINES["now"]: 8})
    with pytest.raises(RuntimeError, match=r"before: the engines are .*compiled convolutions.*, not .*switched off"):
        cnn_end_to_end.read_bank("before", tmp_path)


def test_a_command_runs_with_plain_convolutions(tmp_path, monkeypatch):
    (tmp_path / "probe.py").write_text(
        "import sys\nfrom memscore.models.architectures import build_network\n"
        "body = build_network('cnn-4-8', (1, 8, 8), 10, 0).body\n"
        "open(sys.argv[1], 'w').write(__name__ + ' ' + body.explain_plain_layers())\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(compiled_convolutions, "find_processor", compiled_convolutions.find_processor)
    monkeypatch.setattr(sys, "argv", ["plain_convolutions", "probe", str(tmp_path / "said")])
    plain_convolutions.main()
    assert (tmp_path / "said").read_text() == f"__main__ {plain_convolutions.REASON}"


@pytest.mark.slow
def test_the_quick_comparison_runs_both_sides_of_a_bank_and_of_trials(tmp_path):
    cnn_end_to_end.main(quick=True, results=tmp_path)
    parts = json.loads((tmp_path / "cnn_end_to_end.json").read_text())["parts"]
    assert parts["bank"]["models"] == 16
    assert parts["bank"]["cpu_s"]["before_over_now"]["n"] == 2
    assert list(parts) == ["bank", *cnn_end_to_end.TRIALS]
    assert all(parts[name]["wall_s"]["before_over_now"]["n"] == 1 for name in cnn_end_to_end.TRIALS)
