"""Change of the network's answer on the example itself (INST Table 1).

forget_probability = p_theta_o(y_f | x_f) - p_theta_u(y_f | x_f)
forget_loss        = loss of theta_u - loss of theta_o on (x_f, y_f), in nats
"""

SOURCE = "INST Table 1 and eq. 3, as a fall"
LOSS_SOURCE = "INST Table 1"


def compute_forget_shift(p_before: float, p_after: float, log_p_before: float, log_p_after: float) -> dict[str, float]:
    """Compute both changes from the probability of the label and its logarithm."""
    return {"forget_probability": p_before - p_after, "forget_loss": log_p_before - log_p_after}
