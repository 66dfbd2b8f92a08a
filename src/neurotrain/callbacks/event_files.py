"""TensorBoard's event files: records of a length and two checksums around messages of its own.

Its writers (``torch.utils.tensorboard``, ``tensorboard.summary``) import some hundred modules, TensorFlow where it is
installed, and keep a thread for each file; the messages alone take none of that.
"""

# pyright: reportAttributeAccessIssue=false
# Classes of messages are made when their modules are imported.
from __future__ import annotations

import struct
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tensorboard.compat.proto.event_pb2 import Event

_PREFIX = "events.out.tfevents."
_POLYNOMIAL = 0x82F63B78  # CRC-32C (Castagnoli), bits reversed
_MASK = 0xA282EAD8
_HPARAMS = "hparams"
_SESSION_START = "_hparams_/session_start_info"
"""Plugin and tag by which TensorBoard finds the parameters of a run."""


def _table() -> tuple[int, ...]:
    found: list[int] = []
    for byte in range(256):
        value = byte
        for _ in range(8):
            value = value >> 1 ^ (_POLYNOMIAL if value & 1 else 0)
        found.append(value)
    return tuple(found)


_TABLE = _table()


def record(message: bytes) -> bytes:
    """Frame one message: its length, a checksum of that, the message, a checksum of it; little endian.

    Reference:
        "TFRecords format details" of TensorFlow's documentation.
    """
    length = struct.pack("<Q", len(message))
    return length + struct.pack("<I", _masked(length)) + message + struct.pack("<I", _masked(message))


def file_version(wall_time: float) -> bytes:
    """The record that each file begins with."""
    from tensorboard.compat.proto.event_pb2 import Event

    return _record_of(Event(wall_time=wall_time, file_version="brain.Event:2"))


def session_start(step: int, wall_time: float) -> bytes:
    """The record that takes back all values of earlier files from ``step`` on."""
    from tensorboard.compat.proto.event_pb2 import Event, SessionLog

    return _record_of(Event(wall_time=wall_time, step=step, session_log=SessionLog(status=SessionLog.START)))


def scalars(values: Mapping[str, float], step: int, wall_time: float) -> bytes:
    """The record of one step's values."""
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.compat.proto.summary_pb2 import Summary

    found = [Summary.Value(tag=name, simple_value=value) for name, value in values.items()]
    return _record_of(Event(wall_time=wall_time, step=step, summary=Summary(value=found)))


def parameters(values: Mapping[str, str | float | bool], wall_time: float) -> bytes:
    """The record by which TensorBoard's table of parameters knows a run; its metrics are those that it has logged."""
    from google.protobuf.struct_pb2 import Value
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.compat.proto.summary_pb2 import Summary, SummaryMetadata
    from tensorboard.compat.proto.tensor_pb2 import TensorProto
    from tensorboard.compat.proto.tensor_shape_pb2 import TensorShapeProto
    from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData, SessionStartInfo

    told = SessionStartInfo(start_time_secs=wall_time)
    for name, value in values.items():
        if isinstance(value, bool):
            told.hparams[name].CopyFrom(Value(bool_value=value))
        elif isinstance(value, str):
            told.hparams[name].CopyFrom(Value(string_value=value))
        else:
            told.hparams[name].CopyFrom(Value(number_value=value))
    content = HParamsPluginData(version=0, session_start_info=told).SerializeToString()
    plugin = SummaryMetadata.PluginData(plugin_name=_HPARAMS, content=content)
    nothing = TensorProto(dtype=1, float_val=[0.0], tensor_shape=TensorShapeProto())
    value = Summary.Value(tag=_SESSION_START, metadata=SummaryMetadata(plugin_data=plugin), tensor=nothing)
    return _record_of(Event(wall_time=wall_time, summary=Summary(value=[value])))


def event_files(folder: Path) -> list[Path]:
    """Files of :func:`next_file`, oldest first."""
    return sorted(folder.glob(f"{_PREFIX}*"))


def next_file(folder: Path) -> Path:
    """Where a process writes: files are read in the order of their names, whatever the clocks say.

    Example:
        >>> next_file(Path("nowhere")).name
        'events.out.tfevents.00001'
    """
    numbers = [path.name.removeprefix(_PREFIX) for path in event_files(folder)]
    last = max((int(number) for number in numbers if number.isdecimal()), default=0)
    return folder / f"{_PREFIX}{last + 1:05d}"


def _record_of(event: Event) -> bytes:
    return record(event.SerializeToString())


def _masked(data: bytes) -> int:
    value = 0xFFFFFFFF
    for byte in data:
        value = _TABLE[(value ^ byte) & 0xFF] ^ value >> 8
    value ^= 0xFFFFFFFF
    return ((value >> 15 | value << 17) + _MASK) & 0xFFFFFFFF
