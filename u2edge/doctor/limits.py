"""Limits that a container sets, from Linux control groups (version 2, and 1 where it is still used)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePosixPath

_CGROUP, _SELF = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")
_NO_LIMIT = 2**60  # version 1 writes "no limit" as a huge number


def cpu_quota(root: Path = _CGROUP, membership: Path = _SELF) -> float | None:
    """Cores' worth of time per second that this process may use; None without a limit. The strictest group counts."""
    found = []
    for folder in _groups(root, membership, "cpu"):
        pair = (
            _read(folder / "cpu.max") or f"{_read(folder / 'cpu.cfs_quota_us')} {_read(folder / 'cpu.cfs_period_us')}"
        )
        quota, _, period = pair.partition(" ")
        if quota.isdigit() and period.strip().isdigit() and int(period) > 0:
            found.append(int(quota) / int(period))
    return round(min(found), 2) if found else None


def memory_limit(root: Path = _CGROUP, membership: Path = _SELF) -> int | None:
    """Bytes that this process may use; None without a limit."""
    found = []
    for folder in _groups(root, membership, "memory"):
        for name in ("memory.max", "memory.limit_in_bytes"):
            value = _read(folder / name)
            if value.isdigit() and int(value) < _NO_LIMIT:
                found.append(int(value))
    return min(found) if found else None


def _groups(root: Path, membership: Path, controller: str) -> Iterator[Path]:
    """Folders of the groups this process is in, up to the root: limits of parents apply too."""
    for line in _read(membership).splitlines():
        _, controllers, path = [*line.split(":", 2), "", ""][:3]
        if controllers and controller not in controllers.split(","):
            continue
        base = root / controller if controllers else root
        group = PurePosixPath(path)
        for each in (group, *group.parents):
            yield base / str(each).lstrip("/")


def _read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""
