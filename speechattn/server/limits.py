"""Limits for the server's visitors."""

import math
from dataclasses import dataclass, fields

__all__ = ["Limits"]


@dataclass(frozen=True)
class Limits:
    """Limits of disk space, memory and time, so that no visitor can block the others.

    Args:
        upload_mb: Maximum file size in 10^6 bytes.
        duration_s: Maximum duration of a recording in seconds.
        jobs: Recordings processed at the same time.
        waiting: Recordings that may wait; further ones are refused.
        upload_timeout_s: Maximum time to receive a file.
        job_timeout_s: Maximum time to process a file, waiting included.
        live_sessions: Maximum number of simultaneous live sessions.
        live_s: Maximum duration of a live session.
        live_idle_s: Maximum time between two messages of a live session.

    Raises:
        ValueError: If a limit is not positive and finite; `waiting` may be 0.
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
