"""Code that several algorithms share: the optimization loop, losses, layers, curvature, domain-adversarial training."""
