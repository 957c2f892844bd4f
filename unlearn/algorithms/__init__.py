"""All algorithms by name: fn(theta_o, retain, forget, config, rng[, validation], step_callback=None) -> theta_u.

Each module states its equation; what all of them share is stated here. theta_o, in evaluation mode, does not change.
retain and forget are the disjoint ExampleSets R and F; validation is for algorithms that need unseen examples, and none
gets the test set. rng draws everything, so a seed decides theta_u. step_callback gets the number of the step, from 1,
and the network; a true value ends the run. theta_u is a new network with theta_o's names and shapes, in evaluation
mode. A run whose loss or weights are not finite raises TrainingDiverged.

An algorithm of the user's own is named module:function and needs no line here: see user_algorithm.py. To add one to the
package, write its file here, one line below, and its line in tests/unlearn/algorithms/test_contract.py.
"""

from memscore.choices import validate_choice_or_function
from memscore.user_functions import is_user_function
from unlearn.algorithms.bad_teacher import BadTeacherConfig, bad_teacher
from unlearn.algorithms.boundary_expand import (
    BoundaryExpandConfig,
    BoundaryExpandPlusConfig,
    boundary_expand,
    boundary_expand_plus,
)
from unlearn.algorithms.boundary_shrink import (
    BoundaryShrinkConfig,
    BoundaryShrinkPlusConfig,
    boundary_shrink,
    boundary_shrink_plus,
)
from unlearn.algorithms.cf_k import CFKConfig, cf_k, require_enough_layers
from unlearn.algorithms.entry import Algorithm
from unlearn.algorithms.eu_k import EUKConfig, eu_k
from unlearn.algorithms.finetune import FineTuneConfig, finetune
from unlearn.algorithms.gradient_ascent import GradientAscentConfig, gradient_ascent
from unlearn.algorithms.influence import InfluenceConfig, influence
from unlearn.algorithms.l1_sparse import L1SparseConfig, l1_sparse
from unlearn.algorithms.neggrad_plus import NegGradPlusConfig, neggrad_plus
from unlearn.algorithms.original import OriginalConfig, original
from unlearn.algorithms.random_label import RandomLabelConfig, random_label
from unlearn.algorithms.retrain import RetrainConfig, retrain
from unlearn.algorithms.salun import SalUnConfig, salun
from unlearn.algorithms.scrub import ScrubConfig, scrub
from unlearn.algorithms.scrub_rewind import ScrubRewindConfig, scrub_rewind
from unlearn.algorithms.ssd import SSDConfig, ssd
from unlearn.algorithms.sure import SureConfig, sure
from unlearn.algorithms.user_algorithm import load_algorithm

ALGORITHMS: dict[str, Algorithm] = {
    "original": Algorithm(
        fn=original, config=OriginalConfig, summary="no change: the last row of every table", paper="RUM"
    ),
    "retrain": Algorithm(
        fn=retrain,
        config=RetrainConfig,
        summary="retraining on the retain set, under a seed of its own: the distance between two oracles",
        paper="RUM",
    ),
    "finetune": Algorithm(fn=finetune, config=FineTuneConfig, summary="training on the retain set", paper="RUM"),
    "gradient-ascent": Algorithm(
        fn=gradient_ascent, config=GradientAscentConfig, summary="gradient ascent on the forget set", paper="RUM, RSU"
    ),
    "neggrad-plus": Algorithm(
        fn=neggrad_plus,
        config=NegGradPlusConfig,
        summary="gradient descent on the retain set and ascent on the forget set in the same step",
        paper="Kurmanji et al. 2023, RUM",
    ),
    "influence": Algorithm(
        fn=influence,
        config=InfluenceConfig,
        summary="one Newton step, by WoodFisher's recursion or conjugate gradients",
        paper="Izzo et al. 2021, RUM",
    ),
    "boundary-shrink": Algorithm(
        fn=boundary_shrink,
        config=BoundaryShrinkConfig,
        summary="labels the forget set with the nearest other class",
        paper="Chen et al. 2023",
        granularity="class",
    ),
    "boundary-shrink-plus": Algorithm(
        fn=boundary_shrink_plus,
        config=BoundaryShrinkPlusConfig,
        summary="boundary-shrink while training on the retain set",
        paper="SURE",
        granularity="class",
    ),
    "boundary-expand": Algorithm(
        fn=boundary_expand,
        config=BoundaryExpandConfig,
        summary="assigns the forget set to an additional class, whose output is then removed",
        paper="Chen et al. 2023",
        granularity="class",
    ),
    "boundary-expand-plus": Algorithm(
        fn=boundary_expand_plus,
        config=BoundaryExpandPlusConfig,
        summary="boundary-expand while training on the retain set",
        paper="SURE",
        granularity="class",
    ),
    "sure": Algorithm(
        fn=sure,
        config=SureConfig,
        summary="makes embeddings of forget set and unseen examples indistinguishable to a discriminator",
        paper="SURE",
        reads_validation=True,
    ),
    "ssd": Algorithm(
        fn=ssd,
        config=SSDConfig,
        summary="dampens the weights that matter more for the forget set than for the training set",
        paper="Foster et al. 2024, beyond the five papers",
    ),
    "l1-sparse": Algorithm(
        fn=l1_sparse,
        config=L1SparseConfig,
        summary="training on the retain set with an L1 penalty that decays",
        paper="Liu et al. 2024, RUM",
    ),
    "random-label": Algorithm(
        fn=random_label,
        config=RandomLabelConfig,
        summary="training on the retain set, and on the forget set with random labels",
        paper="RUM, RSU",
        random_labels=True,
    ),
    "salun": Algorithm(
        fn=salun,
        config=SalUnConfig,
        summary="random-label, restricted to the weights with the largest gradients on the forget set",
        paper="Fan et al. 2023, RUM",
        random_labels=True,
    ),
    "scrub": Algorithm(
        fn=scrub,
        config=ScrubConfig,
        summary="maximizes the distance to theta_o on the forget set, alternating with minimizing it on the retain set",
        paper="Kurmanji et al. 2023, INST",
    ),
    "scrub-rewind": Algorithm(
        fn=scrub_rewind,
        config=ScrubRewindConfig,
        summary="scrub, rewound to the step at which the forget error equals that of unseen examples of the same "
        "classes",
        paper="Kurmanji et al. 2023, SURE",
        reads_validation=True,
    ),
    "bad-teacher": Algorithm(
        fn=bad_teacher,
        config=BadTeacherConfig,
        summary="distills an untrained network on the forget set and theta_o on the retain set",
        paper="Chundawat et al. 2023, RSU",
    ),
    "cf-k": Algorithm(
        fn=cf_k,
        config=CFKConfig,
        summary="trains the last k layers on the retain set",
        paper="Goel et al. 2022",
        check_fit=require_enough_layers,
    ),
    "eu-k": Algorithm(
        fn=eu_k,
        config=EUKConfig,
        summary="reinitializes the last k layers and trains them on the retain set",
        paper="Goel et al. 2022",
        check_fit=require_enough_layers,
    ),
}


def get_algorithm(name: str) -> Algorithm:
    """Return the algorithm of that name, or the user's own by module:function.

    Raises:
        ValueError: an unknown name, with the nearest one; a user's function that is no algorithm.
    """
    if is_user_function(name):
        return load_algorithm(name)
    return ALGORITHMS[validate_choice_or_function("algorithm", name, ALGORITHMS)]
