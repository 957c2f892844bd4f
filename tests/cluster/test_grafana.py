"""The board for Grafana: every query of it, sent to a real Prometheus that scrapes a real cluster at work."""

import json
import math
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from pathlib import Path

import pytest

from memscore.monitoring.heartbeat import read_heartbeat
from memscore.monitoring.prometheus import COUNTERS, GAUGES, PREFIX
from memscore.store.store import Store
from tests.conftest import TOKEN

ROOT = Path(__file__).parents[2]
BOARD = json.loads((ROOT / "cluster" / "deploy" / "grafana.json").read_text())
TARGETS = {
    f"{panel['title']}, {target['refId']}": target["expr"] for panel in BOARD["panels"] for target in panel["targets"]
}
ARM, MODELS = "exact-k0.500-b8", 64


def test_the_board_asks_only_for_what_is_published():
    queried = {name for expr in TARGETS.values() for name in re.findall(rf"ray_{PREFIX}_(\w+)", expr)}
    assert queried <= set(COUNTERS) | set(GAUGES)
    assert {*COUNTERS, *GAUGES} - queried == set()
    tags = {name: tag for table in (COUNTERS, GAUGES) for name, (_, tag) in table.items()}
    for expr in TARGETS.values():
        for kinds, name in re.findall(rf"by \(([\w, ]+)\) \([a-z_(]*ray_{PREFIX}_(\w+)", expr):
            assert set(kinds.split(", ")) <= {"run", tags[name]}, expr


def test_a_gauge_is_looked_for_over_a_minute():
    """Ray forgets a gauge with every scrape until its driver sets it again, so one moment may find none."""
    for expr in TARGETS.values():
        for before, name in re.findall(rf"(\w*\(?)ray_{PREFIX}_(\w+)", expr):
            assert (before == "last_over_time(") == (name in GAUGES), expr
        for before in re.findall(r"(\w*\(?)ray_node_\w+", expr):  # Ray's own gauges
            assert before == "last_over_time(", expr


def test_the_board_is_one_that_grafana_can_lay_out():
    assert 6 <= len(BOARD["panels"]) <= 10
    assert len({panel["id"] for panel in BOARD["panels"]}) == len(BOARD["panels"])
    taken = set()
    for panel in BOARD["panels"]:
        place = panel["gridPos"]
        cells = {(place["x"] + i, place["y"] + j) for i in range(place["w"]) for j in range(place["h"])}
        assert place["x"] + place["w"] <= 24
        assert not cells & taken, panel["title"]
        taken |= cells
        assert panel["description"]
    variables = {variable["name"] for variable in BOARD["templating"]["list"]}
    used = set(re.findall(r"\$\{?(\w+)", json.dumps(BOARD["panels"])))
    assert used <= variables | {"__rate_interval"}


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def ask(url, expr):
    """Values of a query, by the tags that it keeps."""
    plain = expr.replace("$run", ".*").replace("$__rate_interval", "5m")
    with urllib.request.urlopen(f"{url}/api/v1/query?query={urllib.parse.quote(plain)}", timeout=10) as answer:
        output = json.load(answer)
    assert output["status"] == "success", (plain, output)
    return {" ".join(row["metric"].values()): float(row["value"][1]) for row in output["data"]["result"]}


@pytest.fixture(scope="module")
def scraped(tmp_path_factory):
    """Prometheus over a cluster whose estimate has ended and whose driver still lives; its URL, and the store."""
    if not shutil.which("prometheus"):
        pytest.skip("there is no `prometheus` on PATH; Debian's package of that name has it")
    folder = tmp_path_factory.mktemp("watched")
    plain = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    own = {"HOME": str(folder), "PYTHONPATH": str(ROOT), "RAY_AUTH_TOKEN": TOKEN, "RAY_USAGE_STATS_ENABLED": "0"}
    own |= {"RAY_metrics_report_interval_ms": "1000", "OMP_NUM_THREADS": "1"}
    run = subprocess.Popen(
        [sys.executable, "-m", "tests.fixtures.watched_run", str(folder)],
        env=plain | own,
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    session = Path(run.stdout.readline().strip())
    given = (session / "metrics" / "prometheus" / "prometheus.yml").read_text()  # as Ray writes it, but more often
    (folder / "prometheus.yml").write_text(re.sub(r"(_interval: )10s", r"\g<1>1s", given))
    address = f"127.0.0.1:{free_port()}"
    with (folder / "prometheus.log").open("w") as log:
        flags = (f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/tsdb")
        prometheus = subprocess.Popen(
            ["prometheus", *flags, f"--web.listen-address={address}"], stdout=log, stderr=log, cwd=folder
        )
        try:
            code = next(line.strip() for line in run.stdout if re.fullmatch(r"\d+\n", line))
            assert code == "1"  # some models diverged
            time.sleep(12)  # for the driver's metrics to reach the agent, and Prometheus
            yield f"http://{address}", Store.open(folder / "store")
        finally:
            prometheus.terminate()
            prometheus.wait(30)
            run.stdin.close()
            run.wait(60)


def plausible(store):
    """What each query must say of this run, by panel: the range that holds every value of it."""
    beat = read_heartbeat(store.folder)
    size = sum(path.stat().st_size for path in Path(store.folder.path("shards")).iterdir())
    rate = (1, 3600 * MODELS)
    assert 0 < beat.diverged < MODELS
    return {
        "Models on file, A": (MODELS - beat.diverged,) * 2,
        "Models on file, B": (MODELS, MODELS),
        "Time left, A": (0, 3600),
        "Models to do, A": (0, 0),
        "Models an hour, A": rate,
        "Models an hour, B": rate,
        "Error of memorization, A": (beat.rmse[ARM], beat.rmse[ARM]),
        "Workers, A": (2, 2),
        "Workers, B": (0, 3),  # with the one that was killed
        "Without a result, A": (0, 0),
        "Without a result, B": (beat.diverged, beat.diverged),
        "Jobs tried again, A": (1, 2),  # the worker that was killed; a job that it was handed while it died
        "Shards written, A": (size, size),
        "Processors in use, A": (0, 100),
    }


@pytest.mark.slow
@pytest.mark.ray
def test_every_query_of_the_board_is_answered_with_what_the_run_was(scraped):
    url, store = scraped
    wanted = plausible(store)
    assert set(wanted) == set(TARGETS)
    for name, expr in TARGETS.items():
        values = ask(url, expr)
        sys.stdout.write(f"{name}: {expr} -> {values}\n")  # for pytest -s
        assert values, f"{name}: no data for {expr}"
        low, high = wanted[name]
        assert all(low <= value <= high or math.isclose(value, low, rel_tol=1e-6) for value in values.values()), (
            f"{name}: {values}, expected {low} to {high}"
        )
    assert set(ask(url, f"max by (arm) (last_over_time(ray_{PREFIX}_models[1m]))")) == {ARM}
    assert set(ask(url, f"sum by (kind) (ray_{PREFIX}_retries_total)")) == {"worker"}
