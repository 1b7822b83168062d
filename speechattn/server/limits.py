"""What the server lets one visitor, and all of them together, ask for."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

__all__ = ["Limits"]


@dataclass(frozen=True)
class Limits:
    """Bounds on disk, memory and time; with them, a visitor can be refused, but not harm the others.

    Args:
        upload_mb: Largest file, in 10^6 bytes.
        duration_s: Longest recording.
        jobs: Recordings worked on at a time.
        waiting: Recordings that may wait behind those; further ones are refused.
        upload_timeout_s: For a file to arrive.
        job_timeout_s: From its arrival to its phones, waiting included.
        live_sessions: Live sessions at a time.
        live_s: Longest live session.
        live_idle_s: How long a live session may send nothing.

    Raises:
        ValueError: When one is not positive and finite; `waiting` may be 0.
    """

    upload_mb: float = 100.0
    duration_s: float = 600.0
    jobs: int = 2
    waiting: int = 16
    upload_timeout_s: float = 120.0
    job_timeout_s: float = 300.0
    live_sessions: int = 4
    live_s: float = 600.0
    live_idle_s: float = 15.0

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if not (0 < value < math.inf or (field.name == "waiting" and value == 0)):
                raise ValueError(f"limits.{field.name} must be positive and finite, got {field.name}={value}")
