"""One job that computes a file of a proxy; what it computes stands in proxy_jobs.py and inversion_jobs.py."""

from dataclasses import dataclass, field

from memscore.pipeline.jobs import ORIGINAL
from memscore.proxies.gradient_inversion import InversionConfig
from memscore.store.shards import format_model_name


@dataclass(frozen=True, kw_only=True)
class ProxyJob:
    """Compute one file of one proxy of one stored original.

    Attributes:
        store: path or URL.
        index: of the original.
        key: under which the original is stored.
        proxy: its name in proxies.registry.PROXIES.
        ending: of the file's name, after the original's key.
        rows: the rows on which holdout retraining fine-tunes, or the training examples that an inversion attacks.
        attack: settings of an inversion.
        trains: key of the model of a half that the job trains; empty for other jobs.
        halves: keys of the two models of halves that an attack needs; empty for other jobs.
        device: "cpu" or "cuda".
    """

    store: str
    index: int
    key: str
    proxy: str
    ending: str
    rows: tuple[int, ...] = ()
    attack: InversionConfig = field(default_factory=InversionConfig)
    trains: str = ""
    halves: tuple[str, ...] = ()
    device: str = "cpu"

    @property
    def name(self) -> str:
        """Name of its failure record."""
        return f"{format_model_name(ORIGINAL, self.index)}-{self.ending}"
