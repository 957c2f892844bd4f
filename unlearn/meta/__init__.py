"""Meta-algorithms: RUM and RSU split a forget set and apply unlearning algorithms to its parts in order."""
