"""The models of a bank that its last scoring found far from the others, from reports/summary.json alone."""

from memscore.statistics.outlying_models import Deviation
from memscore.store.filesystem import Folder
from memscore.store.json_records import read_record

SUMMARY = "reports/summary.json"


def read_outlying_models(folder: Folder) -> dict[str, tuple[Deviation, ...]]:
    """Read the names of models far from the others, and in which measures.

    Empty for a bank that was not scored yet, or by a version before there was such a list.
    """
    if not folder.exists(SUMMARY):
        return {}
    return {
        model["model"]: tuple(Deviation(**deviation) for deviation in model["deviations"])
        for arm in read_record(folder, SUMMARY)["arms"]
        for model in arm.get("outlying_models", ())
    }
