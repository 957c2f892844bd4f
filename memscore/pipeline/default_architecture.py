"""Say what the default network costs where there is no GPU, before a first run takes a day."""

from memscore.models.architectures import build_network
from memscore.pipeline.config import DEFAULT_ARCHITECTURE, BankConfig
from memscore.store.store import Store
from memscore.training.step_flops import count_step_flops

FOR_CPUS = "cnn"


def describe_costly_default(config: BankConfig, store: Store, device: str) -> list[str]:
    """Describe how much less a small network costs, where a new bank on CPUs has the default one for images.

    `config` is completed by what is stored; its `arch` is None where nobody chose a network. One line, or none.
    """
    manifest = store.manifest
    if config.arch or store.is_created or device != "cpu" or manifest.architecture != DEFAULT_ARCHITECTURE:
        return []
    costs = [
        count_step_flops(build_network(arch, manifest.input_shape, manifest.n_classes, seed=0), manifest.input_shape, 1)
        for arch in (DEFAULT_ARCHITECTURE, FOR_CPUS)
    ]
    return [
        f"{DEFAULT_ARCHITECTURE}, the default for images, is meant for GPUs; --arch {FOR_CPUS} takes "
        f"{costs[0] / costs[1]:.0f} times fewer operations, and --dry-run says what either costs"
    ]
