"""What commands beyond estimate compute: audit, fidelity, influence, import."""
