"""Claim: how far the ranks of gradient inversion change from 250 to 500 iterations.

    python -m benchmarks.inversion_stability --store DIR --data fashion-mnist [--candidates 200]

The first original of a finished bank, the same candidates and starts twice. The files of both attacks stay in the bank.
"""

from dataclasses import replace

import numpy as np
import tyro

from benchmarks.results_file import save, spread
from memscore.analysis.fidelity import find_original_keys
from memscore.analysis.risk_signals import bootstrap_spearman
from memscore.pipeline.proxy_jobs import build_proxy_jobs, run_proxy_job
from memscore.pipeline.reload_data import reload_splits
from memscore.pipeline.train_bank import build_shared_data
from memscore.proxies.storage import InversionOptions, choose_total_variation, read_proxy
from memscore.seeds import generator
from memscore.store.store import Store

ITERATIONS = (250, 500)


def main(store: str, data: str | None = None, candidates: int = 200) -> None:
    """Measure.

    Args:
        store: a bank with an original.
        data: its data, where its manifest's name is not enough.
        candidates: how many examples are attacked.
    """
    bank = Store.open(store)
    splits = reload_splits(bank, data, None)
    shared, key = build_shared_data(splits, None), find_original_keys(bank)[0]
    base = InversionOptions(
        candidates=candidates,
        iterations=ITERATIONS[0],
        total_variation=choose_total_variation(bank.manifest.input_shape),
    )
    found, seconds = [], []
    for iterations in ITERATIONS:
        settings = replace(base, iterations=iterations)
        receipts = [
            receipt
            for job in build_proxy_jobs(bank, splits, ["inversion"], {0: key}, settings)
            for receipt in run_proxy_job(job, shared)
        ]
        seconds.append(sum(receipt["seconds"] for receipt in receipts))
        columns = read_proxy(bank, key, "inversion", settings)
        assert columns is not None
        found.append(columns)
    result: dict[str, object] = {"what": f"{candidates} examples of {bank.manifest.data}, {bank.manifest.architecture}"}
    rng = generator(bank.manifest.seed, "bootstrap", "stability")
    for score in ("inversion_psnr", "inversion_ssim"):
        less, more = (columns[score][~np.isnan(columns[score])] for columns in found)
        ranks = bootstrap_spearman(less, more, rng)
        result |= {
            f"{score}_spearman": [ranks.value, ranks.lo, ranks.hi],
            f"{score}_250": spread(less.tolist()),
            f"{score}_500": spread(more.tolist()),
            f"{score}_difference": spread((more - less).tolist()),
        }
    success = [float(np.nanmean(columns["inversion_success"])) for columns in found]
    save("inversion_stability", result | {"success": success, "seconds_this_run": seconds})


if __name__ == "__main__":
    tyro.cli(main)
