"""What one server does for its visitors at most. Every number that bounds work, memory or time stands here."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Sizes in bytes, times in seconds."""

    upload_bytes: int = 24 << 20  # of a photo, a recording or a frame
    in_flight_bytes: int = 192 << 20  # of all uploads on their way
    json_bytes: int = 16 << 10  # of the settings of a job
    pixels: int = 50 << 20  # of a photo before it is shrunk; telephones take 48 megapixels
    sides: tuple[int, ...] = (256, 384, 512, 768, 1024)  # to which the longer side of a photo is shrunk
    steps: int = 20
    recording_s: float = 120.0
    body_s: float = 30.0  # for a body to arrive
    header_s: float = 10.0  # for the header of a request to arrive
    job_s: float = 90.0  # of computing for one job
    grace_s: float = 3.0  # until a job that does not react to being cancelled is ended
    queue: int = 150  # jobs that wait
    session_jobs: int = 4  # jobs of one session that wait or run
    session_kept: int = 16  # finished jobs of one session whose results are kept
    session_uploads: int = 4
    session_bytes: int = 64 << 20
    session_streams: int = 4  # pages of one session
    sessions: int = 200
    total_bytes: int = 1 << 30  # of all sessions
    idle_s: float = 600.0  # after which a session without an open page ends
    absent_s: float = 5.0  # after the last of its pages was closed the jobs of a session are cancelled
    gone_s: float = 60.0  # after the last of its pages was closed a session ends
    connections: int = 500
    worker_bytes: int = 2560 << 20  # of memory of the process that computes
