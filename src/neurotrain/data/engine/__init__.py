"""The engine under every loader: workers, shared memory, order, errors, counts. It knows no plan and no dataset."""

from neurotrain.data.engine.assembly import BatchMaker
from neurotrain.data.engine.errors import LoaderError, LoaderTimeoutError, WorkerDiedError, WorkerError
from neurotrain.data.engine.ledger import LEDGER, Ledger, entries, merge_ledgers
from neurotrain.data.engine.pool import StartMethod, WorkerPool
from neurotrain.data.engine.protocols import (
    BatchRequest,
    BatchSource,
    CountingSource,
    DirectSource,
    NamedSource,
    SampleName,
    SampleSource,
)
from neurotrain.data.engine.quarantine import BadSample, Quarantine, TooManyBadSamplesError, is_mistake, replacement
from neurotrain.data.engine.stream import Delivery, LocalStream, PooledStream, Stream
from neurotrain.data.engine.telemetry import Records, Statistics, resident_bytes
from neurotrain.data.engine.worker import worker_number

__all__ = [
    "LEDGER",
    "BadSample",
    "BatchMaker",
    "BatchRequest",
    "BatchSource",
    "CountingSource",
    "Delivery",
    "DirectSource",
    "Ledger",
    "LoaderError",
    "LoaderTimeoutError",
    "LocalStream",
    "NamedSource",
    "PooledStream",
    "Quarantine",
    "Records",
    "SampleName",
    "SampleSource",
    "StartMethod",
    "Statistics",
    "Stream",
    "TooManyBadSamplesError",
    "WorkerDiedError",
    "WorkerError",
    "WorkerPool",
    "entries",
    "is_mistake",
    "merge_ledgers",
    "replacement",
    "resident_bytes",
    "worker_number",
]
