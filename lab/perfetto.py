"""Perfetto traces: tracks with slices, counters and arrows, for https://ui.perfetto.dev.

A trace is a protobuf message that holds packets; each is written as it comes, so a long trace needs no memory. A track
is described once and then referred to by its number. A slice is two packets, its begin and its end; slices of one track
nest. The schema comes with the package `perfetto`.

>>> import io
>>> file = io.BytesIO()
>>> trace = PerfettoFile(file)
>>> process = trace.process(1, "hello.asm")
>>> trace.slice(trace.track("system calls", process), 1000, 2500, "write", {"result": "14"})
>>> len(packets(file.getvalue()))
4
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import IO, Any

from emu import InputError

__all__ = ["PerfettoFile", "packets"]

SEQUENCE = 1
"""All packets are of one writer."""


def _schema() -> Any:
    try:
        from perfetto.protos.perfetto.trace import perfetto_trace_pb2
    except ImportError:
        raise InputError("a Perfetto trace needs the package perfetto: pip install 'cr3-lab[trace]'") from None
    return perfetto_trace_pb2


def packets(data: bytes) -> list[Any]:
    """The packets of a trace, read back. Raises InputError without the package perfetto."""
    trace = _schema().Trace()
    trace.ParseFromString(data)
    return list(trace.packet)


class PerfettoFile:
    """Writes packets to a binary file. Times are nanoseconds. Raises InputError without the package perfetto."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file, self._schema = file, _schema()
        self._kinds = self._schema.TrackEvent
        self._tracks = 0

    def _write(self, packet: Any) -> None:
        """A message that holds nothing but this packet: such messages, one after the other, are one message."""
        packet.trusted_packet_sequence_id = SEQUENCE
        self._file.write(self._schema.Trace(packet=[packet]).SerializeToString())

    # --- tracks -------------------------------------------------------------------------------------------------------

    def _describe(self, name: str, parent: int | None) -> Any:
        packet = self._schema.TracePacket()
        self._tracks += 1
        descriptor = packet.track_descriptor
        descriptor.uuid = self._tracks
        descriptor.child_ordering = self._schema.TrackDescriptor.ChildTracksOrdering.EXPLICIT
        descriptor.sibling_order_rank = self._tracks
        if name:
            descriptor.name = name
        if parent is not None:
            descriptor.parent_uuid = parent
        return packet

    def process(self, pid: int, name: str, track: int | None = None) -> int:
        """The track of a process; with `track` it gets another name. Returns its number."""
        packet = self._describe("", None)
        if track is not None:
            packet.track_descriptor.uuid = track
        packet.track_descriptor.process.pid = pid
        packet.track_descriptor.process.process_name = name
        self._write(packet)
        return int(packet.track_descriptor.uuid)

    def track(self, name: str, parent: int | None = None) -> int:
        """A track for slices."""
        packet = self._describe(name, parent)
        self._write(packet)
        return self._tracks

    def counter(self, name: str, unit: str, parent: int | None = None) -> int:
        """A track for a value over time."""
        packet = self._describe(name, parent)
        packet.track_descriptor.counter.unit_name = unit
        self._write(packet)
        return self._tracks

    # --- what is on them ----------------------------------------------------------------------------------------------

    def _event(self, track: int, time: int, kind: int) -> Any:
        packet = self._schema.TracePacket(timestamp=time)
        packet.track_event.type = kind
        packet.track_event.track_uuid = track
        return packet

    def _named(
        self, track: int, time: int, kind: int, name: str, details: Mapping[str, str], flows: Iterable[int]
    ) -> Any:
        packet = self._event(track, time, kind)
        event = packet.track_event
        event.name = name
        event.flow_ids.extend(flows)
        for key, value in details.items():
            event.debug_annotations.add(name=key, string_value=value)
        return packet

    def begin(
        self, track: int, time: int, name: str, details: Mapping[str, str] | None = None, flows: Iterable[int] = ()
    ) -> None:
        """A slice begins. Slices that have a flow in common are joined by arrows."""
        self._write(self._named(track, time, self._kinds.TYPE_SLICE_BEGIN, name, details or {}, flows))

    def end(self, track: int, time: int) -> None:
        """The slice that began last on a track ends."""
        self._write(self._event(track, time, self._kinds.TYPE_SLICE_END))

    def slice(
        self,
        track: int,
        begin: int,
        end: int,
        name: str,
        details: Mapping[str, str] | None = None,
        flows: Iterable[int] = (),
    ) -> None:
        """A whole slice."""
        self.begin(track, begin, name, details, flows)
        self.end(track, end)

    def instant(self, track: int, time: int, name: str, details: Mapping[str, str] | None = None) -> None:
        """Something without a length."""
        self._write(self._named(track, time, self._kinds.TYPE_INSTANT, name, details or {}, ()))

    def count(self, track: int, time: int, value: int) -> None:
        """A counter's value from now on."""
        packet = self._event(track, time, self._kinds.TYPE_COUNTER)
        packet.track_event.counter_value = value
        self._write(packet)
