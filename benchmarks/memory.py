"""How much memory a process has, and had at most."""


def memory_mb(pid: int | str = "self") -> dict[str, float]:
    """Resident memory of a process, now and at its peak, in MB.

    Args:
        pid: of a process on this machine; this one if left out.
    """
    with open(f"/proc/{pid}/status") as status:
        lines = dict(line.split(":", 1) for line in status)
    return {"rss_mb": int(lines["VmRSS"].split()[0]) / 1000, "peak_mb": int(lines["VmHWM"].split()[0]) / 1000}
