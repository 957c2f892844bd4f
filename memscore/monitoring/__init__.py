"""How far a run is and the status of a bank: heartbeat, progress, metrics, status."""
