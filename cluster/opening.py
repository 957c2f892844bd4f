"""A Ray pool with the cluster under it, in one step, for the doors."""

from collections.abc import Generator
from contextlib import contextmanager

from cluster.pool import Pool
from cluster.session import address_of, check_reachable, connect, gpus, refuse_workers


def refuse_staff(pool: str, workers: int | None, address: str | None) -> bool:
    """Stop before anything is begun if such workers cannot be.

    Args:
        pool: "ray" or "serial".
        workers: how many at once.
        address: of a running cluster.

    Returns:
        Whether all workers will be on this machine, so that its GPUs are theirs.

    Raises:
        ConnectionError: no cluster answers at the address.
        ValueError: fewer than one worker, or workers of a pool that has none.
    """
    if pool == "serial" and (workers is not None or address is not None):
        raise ValueError("--pool serial is this process alone; leave out --workers and --address, or use --pool ray")
    refuse_workers(workers)
    if pool == "ray":
        check_reachable(address_of(address))
    return pool == "serial" or address_of(address) == "local"


@contextmanager
def ray_pool(address: str | None, workers: int | None, device: str) -> Generator[tuple[Pool, str], None, None]:
    """Join or start a cluster and staff it, each worker with a whole GPU or with none.

    Args:
        address: of a running cluster; None starts one on this machine unless RAY_ADDRESS names one.
        workers: how many at once; None for all that fit.
        device: "cpu", "cuda", or "auto" for GPUs where the cluster has any.

    Yields:
        The pool, and the device that its workers have.

    Raises:
        ValueError: GPUs are asked for and no node has one.
    """
    with connect(address=address, workers=workers):
        from cluster.ray_pool import RayPool  # imports Ray, whose mode of authentication connect() chooses

        chosen = ("cuda" if gpus() else "cpu") if device == "auto" else device
        if chosen == "cuda" and not gpus():
            raise ValueError("--device cuda, but no node of the Ray cluster has a GPU; use --device cpu, or auto")
        with RayPool(workers=workers, gpus_per_worker=float(chosen == "cuda")) as pool:
            yield pool, chosen
