"""A Ray pool with the cluster under it, in one step, for the doors."""

from collections.abc import Generator
from contextlib import contextmanager

from cluster.pool import Pool
from cluster.session import connect, gpus


@contextmanager
def ray_pool(address: str | None, workers: int | None, device: str) -> Generator[tuple[Pool, str], None, None]:
    """Join or start a cluster and staff it, each worker with a whole GPU or with none.

    Args:
        address: of a running cluster; None starts one on this machine unless RAY_ADDRESS names one.
        workers: how many at once; None for all that fit.
        device: "cpu", "cuda", or "auto" for GPUs where the cluster has any.

    Yields:
        The pool, and the device that its workers have.
    """
    with connect(address=address, workers=workers):
        from cluster.ray_pool import RayPool  # imports Ray, whose mode of authentication connect() chooses

        chosen = ("cuda" if gpus() else "cpu") if device == "auto" else device
        with RayPool(workers=workers, gpus_per_worker=float(chosen == "cuda")) as pool:
            yield pool, chosen
