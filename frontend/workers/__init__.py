"""The asyncio side of workers: where they are, how to talk to them, which are ready."""

from frontend.workers.discovery import TargetError, check, server_name
from frontend.workers.fleet import read_description
from frontend.workers.open_inference import OpenInferenceTransport
from frontend.workers.pool import Fits, Pool, PoolSettings
from frontend.workers.streams import Ended, Ending, Reply, WorkerFailure
from frontend.workers.transport import Cancellable, GrpcTransport, Transport
from frontend.workers.worker import Worker

__all__ = [
    "Cancellable",
    "Ended",
    "Ending",
    "Fits",
    "GrpcTransport",
    "OpenInferenceTransport",
    "Pool",
    "PoolSettings",
    "Reply",
    "TargetError",
    "Transport",
    "Worker",
    "WorkerFailure",
    "check",
    "read_description",
    "server_name",
]
