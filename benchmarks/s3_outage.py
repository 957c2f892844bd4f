"""A run of `python -m memscore.estimate` whose S3 server is away for 30 seconds in the middle: what is lost?

    python -m benchmarks.s3_outage

Twice: the server frozen (SIGSTOP: it takes connections and says nothing), and its cable cut (connections break, new
ones are refused, as of a server that dies and comes back with its content). A calm run on a local disk gives the bytes
that both must leave. A model trained twice is one whose receipt changed after its shard was seen.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from benchmarks.results_file import save
from benchmarks.s3_server import Cable, Server, server, url_of

KINDS = ("shards/", "scores/", "scores.parquet")


def command(models: int, pool: str, store: str) -> list[str]:
    """The run: a job for each model, so that the outage hits workers in every state."""
    flags = "--train-limit 400 --design exact --block 8 --originals 1 --arch cnn-8-16 --recipe digits --epochs 30"
    return [sys.executable, "-m", "memscore.estimate", *f"{flags} --models {models} {pool} --store {store}".split()]


def of_results(objects: dict[str, bytes]) -> dict[str, bytes]:
    """Shards and scores."""
    return {path: content for path, content in objects.items() if path.startswith(KINDS) and not path.endswith("/")}


def models_in(objects: Iterable[str]) -> set[str]:
    """Models with a shard."""
    names = [path for path in objects if path.startswith("shards/") and path.endswith(".parquet")]
    return {path.removeprefix("shards/").removesuffix(".parquet") for path in names}


def run_with_outage(
    kind: str, there: Server, models: int, pool: str, away_s: float, calm: dict[str, bytes]
) -> dict[str, Any]:
    """One run, hit after a third of its models."""
    cable = Cable(there.port)
    process = subprocess.Popen(
        command(models, pool, url_of(cable.port, kind)), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    began = time.monotonic()
    while len(models_in(there.names(f"{kind}/"))) < models // 3:
        if process.poll() is not None:
            raise RuntimeError(f"it ended before it could be hit: {process.communicate()[0]}")
        time.sleep(0.2)
    before = there.objects(f"{kind}/")
    (there.freeze if kind == "frozen" else cable.cut)()
    time.sleep(away_s)
    (there.thaw if kind == "frozen" else cable.join)()
    back = time.monotonic()
    there_then = models_in(there.names(f"{kind}/"))
    while process.poll() is None and models_in(there.names(f"{kind}/")) <= there_then:
        time.sleep(0.1)
    went_on_s = time.monotonic() - back
    said, _ = process.communicate(timeout=1800)
    cable.cut()
    after = there.objects(f"{kind}/")
    receipts = [f"receipts/{model}.json" for model in models_in(before)]
    return {
        "outage": kind,
        "away_s": away_s,
        "exit_code": process.returncode,
        "models_before": len(models_in(before)),
        "models": len(models_in(after)),
        "lost": len(models_in(calm) - models_in(after)),
        "trained_twice": sum(before[path] != after[path] for path in receipts),
        "failures_on_file": sum(path.startswith("failures/") for path in after),
        "seconds_until_a_new_model": round(went_on_s, 1),
        "wall_s": round(time.monotonic() - began, 1),
        "shards_and_scores_equal_to_calm": of_results(after) == of_results(calm),
        "said": [
            line for line in said.splitlines() if "again for" in line or "after all" in line or line.startswith("error")
        ],
    }


def on_disk(folder: Path) -> dict[str, bytes]:
    """Every file under a folder."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def main() -> None:
    """Measure and write results/s3_outage.json."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", type=int, default=48)
    parser.add_argument("--away-s", type=float, default=30.0)
    parser.add_argument("--pools", nargs="+", default=["--pool ray --workers 2", "--pool serial"])
    arguments = parser.parse_args()
    os.environ["AWS_EC2_METADATA_DISABLED"] = "true"
    rows = []
    with tempfile.TemporaryDirectory() as folder, server() as there:
        local = Path(folder) / "calm"
        began = time.monotonic()
        subprocess.run(command(arguments.models, "--pool serial", str(local)), check=True, stdout=subprocess.DEVNULL)
        calm_s, calm = time.monotonic() - began, on_disk(local)
        for pool in arguments.pools:
            for kind in ("frozen", "cut"):
                rows.append({
                    "pool": pool,
                    **run_with_outage(kind, there, arguments.models, pool, arguments.away_s, calm),
                })
                for path in there.names(f"{kind}/"):
                    there.client("s3").delete_object(Bucket="bank", Key=f"{kind}/{path}")
    save("s3_outage", {"n": len(rows), "models": arguments.models, "calm_local_s": round(calm_s, 1), "runs": rows})


if __name__ == "__main__":
    main()
