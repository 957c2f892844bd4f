"""Scores of another bank than the one whose recipe trains theta_o."""

from memscore.store.store import Store


def scores_for(store: Store, url: str | None) -> tuple[Store, tuple[str, ...]]:
    """Where scores are read, and what a reader of results must know of that.

    Args:
        store: the user's, whose recipe trains theta_o.
        url: path or URL of another bank; None for the same.

    Returns:
        The store that has the scores, and a line if its models were trained otherwise than theta_o.

    Raises:
        ValueError: a bank of other data: its scores are of other examples, or of models that saw others.
    """
    if url is None:
        return store, ()
    try:
        other = Store.open(url)
    except (ValueError, OSError) as error:
        raise ValueError(f"--scores-of {url}: {error}") from None
    ours, theirs = store.manifest, other.manifest
    if ours.fingerprint != theirs.fingerprint:
        raise ValueError(
            f"--scores-of {other.folder.shown} is a bank of other data than {store.folder.shown} (splits "
            f"{theirs.split_sizes} and {ours.split_sizes}, fingerprints {theirs.fingerprint[:8]} and "
            f"{ours.fingerprint[:8]}); use one of the same data, --validation, --label-noise and --seed"
        )
    own, its = ({"architecture": one.architecture, **one.recipe} for one in (ours, theirs))
    differing = [f"{name} {its.get(name)}, theta_o's {value}" for name, value in own.items() if its.get(name) != value]
    if not differing:
        return other, ()
    return other, (
        f"scores are those of {other.folder.shown}, whose models were trained otherwise ({'; '.join(differing)}): what "
        "they have memorized need not be what theta_o has",
    )
