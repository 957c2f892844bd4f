"""How hard single examples are to unlearn, and what goes with it (Rizwan et al. 2025, "INST")."""
