"""Every measure by name: what it needs, its columns with unit, direction and ideal.

To add one, write its file here and one line below; tests/unlearn/measures/test_table.py holds it to its word.
"""

from typing import Literal

from unlearn.measures import (
    accuracy,
    class_matched,
    confusion,
    entanglement,
    epsilon,
    gini,
    klom,
    mia,
    relearn,
    tow,
    u_lira,
    weight_distance,
)
from unlearn.measures.inputs import Measure

UNSEEN: tuple[Literal["validation", "test"], ...] = ("validation", "test")

MEASURES: dict[str, Measure] = {
    "accuracy": Measure(fn=accuracy.accuracy, columns=accuracy.COLUMNS, needs="outputs", paper="RUM, SURE", core=True),
    "held-out-accuracy": Measure(
        fn=accuracy.held_out_accuracy,
        columns=accuracy.COLUMNS_HELD_OUT,
        needs="outputs",
        paper="RUM, SURE",
        core=True,
        splits=UNSEEN,
    ),
    "kept-class-accuracy": Measure(
        fn=accuracy.kept_class_accuracy,
        columns=accuracy.COLUMNS_KEPT,
        needs="outputs",
        paper="RSU",
        splits=UNSEEN,
    ),
    "tow": Measure(fn=tow.tow, columns=tow.COLUMNS, needs="outputs", paper="RUM", core=True, splits=UNSEEN),
    "mia": Measure(fn=mia.mia, columns=mia.COLUMNS, needs="outputs", paper="RUM, SCALE", core=True, splits=UNSEEN),
    "mia-threshold": Measure(
        fn=mia.mia_threshold,
        columns=mia.COLUMNS_THRESHOLD,
        needs="outputs",
        paper="Song & Mittal 2021",
        splits=UNSEEN,
    ),
    "tow-mia": Measure(fn=tow.tow_mia, columns=tow.COLUMNS_MIA, needs="outputs", paper="RUM", core=True, splits=UNSEEN),
    "mia-losses": Measure(
        fn=mia.mia_losses,
        columns=mia.COLUMNS_LOSSES,
        needs="outputs",
        paper="Kurmanji et al. 2023, SURE",
        core=True,
        splits=UNSEEN,
    ),
    "mia-confidence": Measure(
        fn=mia.mia_confidence,
        columns=mia.COLUMNS_CONFIDENCE,
        needs="outputs",
        paper="SURE",
        core=True,
        splits=UNSEEN,
    ),
    "mia-representation": Measure(
        fn=mia.mia_representation,
        columns=mia.COLUMNS_REPRESENTATION,
        needs="outputs",
        paper="SURE",
        splits=UNSEEN,
    ),
    "entanglement": Measure(
        fn=entanglement.entanglement, columns=entanglement.COLUMNS, needs="outputs", paper="RUM", core=True
    ),
    "confusion": Measure(
        fn=confusion.confusion, columns=confusion.COLUMNS, needs="outputs", paper="Goel et al. 2022, SURE"
    ),
    "held-out-confusion": Measure(
        fn=confusion.held_out_confusion,
        columns=confusion.COLUMNS_HELD_OUT,
        needs="outputs",
        paper="Goel et al. 2022, SURE",
        splits=UNSEEN,
    ),
    "gini": Measure(fn=gini.loss_gini, columns=gini.COLUMNS, needs="outputs", paper="SCALE", core=True),
    "class-matched": Measure(
        fn=class_matched.class_matched,
        columns=class_matched.COLUMNS,
        needs="outputs",
        paper="Kurmanji et al. 2023",
        splits=UNSEEN,
    ),
    "relearn": Measure(fn=relearn.relearn, columns=relearn.COLUMNS, needs="weights", paper="Kurmanji et al. 2023, RSU"),
    "weight-distance": Measure(
        fn=weight_distance.weight_distance, columns=weight_distance.COLUMNS, needs="weights", paper="SURE"
    ),
    "u-lira": Measure(fn=u_lira.u_lira, columns=u_lira.COLUMNS, needs="population", paper="Hayes et al. 2024"),
    "epsilon": Measure(
        fn=epsilon.epsilon, columns=epsilon.COLUMNS, needs="population", paper="Triantafillou et al. 2024"
    ),
    "challenge-score": Measure(
        fn=epsilon.challenge_score,
        columns=epsilon.COLUMNS_CHALLENGE,
        needs="population",
        paper="Triantafillou et al. 2024",
        splits=UNSEEN,
    ),
    "klom": Measure(fn=klom.klom, columns=klom.COLUMNS, needs="population", paper="Georgiev et al. 2024"),
    "held-out-klom": Measure(
        fn=klom.held_out_klom,
        columns=klom.COLUMNS_HELD_OUT,
        needs="population",
        paper="Georgiev et al. 2024",
        splits=UNSEEN,
    ),
}
