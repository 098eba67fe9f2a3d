"""The packets of one video stream in time: where key frames lie, and how to get to them.

Nothing is decoded here. A tick is the unit of the stream's time base, counted from the first
frame. Bare elementary streams carry no times: there a tick is a frame. An AVI file says when its
packets are decoded, not when their frames are shown: the frames get those times in order.
"""

from __future__ import annotations

import math
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from geotag.footage import container

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from av.container import InputContainer
    from av.packet import Packet
    from av.video.stream import VideoStream
    from numpy.typing import NDArray

    from geotag.footage.limits import Meter

_MOST_PACKETS = 300_000
"""Longest run of packets that is walked without decoding: nearly three hours at 30 fps."""
_MOST_HELD = 600
"""Packets held back while looking for the last key frame before a time."""
_MOST_READ_ERRORS = 100
_MOST_REORDERED = 16
"""H.264 and H.265 let a frame be shown at most this many frames later than it is decoded."""
_BACK_STEPS_S = (0.0, 2.0, 10.0, math.inf)
"""How far ahead of a time to seek, in turn: some containers seek to a packet, not a key frame."""
_MOST_SEEKS = 4
_EARLY_S = 10.0
_BARE_RATE_HZ = 25.0


@dataclass(frozen=True, slots=True, eq=False)
class Timeline:
    """What the demuxer says about a stretch of video.  P packets, in decoding order."""

    ticks: NDArray[np.int64]
    """[P], presentation time of each packet."""
    is_key: NDArray[np.bool_]
    """[P]"""
    is_end: bool
    """The stretch reaches the end of the file, or as far as packets are walked."""

    def runs(self, needed: set[int]) -> list[tuple[int, list[int]]]:
        """Key frames to start from, each with the needed frames after it in decoding order."""
        by_key: dict[int, list[int]] = {}
        key_tick = before_tick = int(self.ticks[0])
        for tick, is_key in zip(self.ticks.tolist(), self.is_key.tolist(), strict=True):
            if is_key:
                key_tick, before_tick = tick, key_tick
            if tick in needed:
                # A frame that is shown before its key frame refers to the group before as well.
                by_key.setdefault(key_tick if tick >= key_tick else before_tick, []).append(tick)
        return sorted(by_key.items())


class PacketSource:
    """Reads the packets of one stream, from any time on."""

    def __init__(
        self, opened: InputContainer, stream: VideoStream, *, size_bytes: int, meter: Meter
    ) -> None:
        """Take over an open container; reads packets only where the stream has no times."""
        self._container = opened
        self._stream = stream
        self._size_bytes = size_bytes
        self._meter = meter
        self._start = stream.start_time or 0
        self.tick_s = float(stream.time_base or 0) or 1 / _BARE_RATE_HZ
        self.read_errors = 0
        self._index = container.packet_index(stream)
        self._bare: list[tuple[int, bool]] | None = None
        """Place in the file and is-key of every packet of a stream without times."""
        if stream.start_time is None and not self._has_times():
            self._walk_bare()

    @property
    def shows_in_order(self) -> bool:
        """Whether packets say nothing of when their frames are shown, but that it is in order."""
        return self._bare is not None or self._container.format.name == "avi"

    @property
    def has_key_table(self) -> bool:
        """Whether `key_ticks` answers without reading the media."""
        return bool(self._index) or self._bare is not None

    def tick_of(self, pts: int | None) -> int | None:
        """Ticks from the first frame."""
        return None if pts is None else pts - self._start

    def tick(self, packet: Packet[VideoStream]) -> int | None:
        """Presentation time of a packet; its decoding time where the container gives no other."""
        if packet.pts is None or self.shows_in_order:
            return self.tick_of(packet.dts)
        return self.tick_of(packet.pts)

    def is_complete(self, packet: Packet[VideoStream], tick: int) -> bool:
        """Whether with this packet everything has been read that a frame needs."""
        read_tick = self.tick(packet)
        if self.shows_in_order:
            return read_tick is not None and read_tick >= tick + _MOST_REORDERED
        is_past = packet.dts is not None and packet.dts - self._start > tick
        return is_past or read_tick == tick

    def measured_end_s(self, claim_s: float | None) -> float | None:
        """When the last frame in the file ends; None where there is no table of packets.

        Args:
            claim_s: what the container says, believed where it is a possible end of that frame.
        """
        if self._bare is not None:
            return len(self._bare) * self.tick_s
        last = next((at for at in self._ends_of_table() if not self._index[at].is_discard), None)
        if last is None:
            return None
        last_s = (self._index[last].timestamp - self._shown.timestamp) * self.tick_s
        step_s = last_s / last if last else 0.0
        if claim_s is not None and last_s < claim_s <= last_s + 2 * step_s:
            return claim_s
        return last_s + step_s or claim_s

    def walked_end_s(self) -> float | None:
        """When the last frame ends, by walking all packets; None for a file too large for it."""
        timeline = self.timeline(0.0, math.inf)
        ticks_P = np.sort(timeline.ticks)
        if len(ticks_P) < 2 or not timeline.is_end:
            return None
        return float((ticks_P[-1] + np.median(np.diff(ticks_P))) * self.tick_s)

    def timeline(
        self,
        start_s: float,
        end_s: float,
        *,
        most: int = _MOST_PACKETS,
        held: list[Packet[VideoStream]] | None = None,
    ) -> Timeline:
        """Walk the packets from the key frame before start_s to the first frame after end_s.

        Args:
            start_s: where to begin.
            end_s: where to end.
            most: packets that are looked at.
            held: takes the packets, for a short stretch of which most will be decoded.
        """
        rows: list[tuple[int, bool]] = []
        latest = -math.inf
        is_end = True
        for packet in self.packets_from(start_s):
            tick = self.tick(packet)
            if held is not None:
                held.append(packet)
            if tick is None or packet.is_discard:
                continue
            rows.append((tick, packet.is_keyframe))
            latest = max(latest, tick)
            decoded = tick if packet.dts is None else packet.dts - self._start
            # Nothing is shown before it is decoded: past here no earlier frame can come.
            if min(decoded, latest) * self.tick_s > end_s or len(rows) >= most:
                is_end = len(rows) >= most
                break
        return Timeline(
            ticks=np.array([tick for tick, _ in rows], np.int64),
            is_key=np.array([is_key for _, is_key in rows], np.bool_),
            is_end=is_end,
        )

    def key_ticks(self, start_s: float, end_s: float) -> list[int]:
        """Key frames of [start_s, end_s], and one on either side; needs `has_key_table`."""
        keys = self._bare_keys() if self._bare is not None else self._indexed_keys(start_s, end_s)
        ticks = sorted(keys)
        first = max(
            (at for at, tick in enumerate(ticks) if tick * self.tick_s <= start_s), default=0
        )
        after = [at for at, tick in enumerate(ticks) if tick * self.tick_s >= end_s]
        return ticks[first : (after[0] + 1 if after else len(ticks))]

    def packets_from(self, time_s: float) -> Iterator[Packet[VideoStream]]:
        """Packets in decoding order from the last key frame at or before a time.

        From the first packet of the file where no key frame comes that early.
        """
        for back_s in _BACK_STEPS_S:
            from_beginning = not back_s < time_s
            packets = self._demux_from(0.0 if from_beginning else time_s - back_s)
            held: list[Packet[VideoStream]] = []
            for packet in packets:
                tick = self.tick(packet)
                is_early = tick is None or tick * self.tick_s <= time_s + self.tick_s / 2
                if packet.is_keyframe and is_early:
                    held = [packet]
                elif held or from_beginning:
                    held.append(packet)
                if not (is_early and len(held) < _MOST_HELD):
                    break
            if held:
                yield from held
                yield from packets
                return

    def packets_at(self, key_ticks: Sequence[int]) -> dict[int, Packet[VideoStream]]:
        """The packets of some key frames at rising times, by those times.

        Reads as little else as the container allows. A packet may tell its time better than the
        table that the time came from.
        """
        if not self.has_key_table:
            wanted = set(key_ticks)
            found = {}
            for packet in self.packets_from(key_ticks[0] * self.tick_s):
                tick = self.tick(packet)
                if tick in wanted:
                    found[tick] = packet
                if tick is not None and tick >= key_ticks[-1]:
                    break
            return found
        firsts = ((tick, self._packet_at(tick)) for tick in key_ticks)
        return {tick: packet for tick, packet in firsts if packet is not None}

    def close(self) -> None:
        """Close the file."""
        self._container.close()

    def _has_times(self) -> bool:
        for packet in self._demux():
            return self.tick(packet) is not None
        return True

    def _walk_bare(self) -> None:
        """Number the packets of a stream without times, and note where they lie."""
        rate_hz = container.rate_hz(self._stream.average_rate) or _BARE_RATE_HZ
        self.tick_s = 1 / rate_hz
        self._bare = rows = []
        self._rewind()
        for packet in self._demux():
            rows.append((packet.pos or 0, packet.is_keyframe))
            if len(rows) >= _MOST_PACKETS:
                break

    def _bare_keys(self) -> list[int]:
        return [number for number, (_, is_key) in enumerate(self._bare or ()) if is_key]

    def _indexed_keys(self, start_s: float, end_s: float) -> Iterator[int]:
        """Key frames around a stretch, from the table of packets.

        The table holds decoding times; the first packet's tells how much later frames are shown.
        """
        index = self._index
        shown = self._shown
        low, high = 0, len(index)
        while low < high:
            middle = (low + high) // 2
            if (index[middle].timestamp - shown.timestamp) * self.tick_s <= start_s:
                low = middle + 1
            else:
                high = middle
        first = max(low - 1, 0)
        while first > 0 and not index[first].is_keyframe:
            first -= 1
        for at in range(first, len(index)):
            entry = index[at]
            is_there = entry.pos + entry.size <= self._size_bytes and not entry.is_discard
            if entry.is_keyframe and is_there:
                tick = entry.timestamp - shown.timestamp
                yield tick
                if tick * self.tick_s >= end_s:
                    return

    def _ends_of_table(self) -> Iterator[int]:
        """Places in the table from the last packet that is wholly in the file to the first."""
        low, high = 0, len(self._index)
        while low < high:  # the packets lie in the file in the order of the table
            middle = (low + high) // 2
            if self._index[middle].pos + self._index[middle].size <= self._size_bytes:
                low = middle + 1
            else:
                high = middle
        yield from range(low - 1, -1, -1)

    @property
    def _shown(self) -> container.IndexEntry:
        """Entry of the first frame that is shown: an edit list may cut away what comes before."""
        return next((entry for entry in self._index if not entry.is_discard), self._index[0])

    def _demux_from(self, time_s: float) -> Iterator[Packet[VideoStream]]:
        if self._bare is not None:
            return self._demux_bare(time_s)
        if time_s <= 0:
            self._rewind()
            return self._demux()
        self._seek(self._start + math.floor(time_s / self.tick_s + 1e-6))
        return self._demux()

    def _packet_at(self, key_tick: int) -> Packet[VideoStream] | None:
        """The packet of a key frame in the table.

        The table has its decoding time, but a seek may be by the time that it is shown, which
        is later by as much as frames are reordered: look a little later if need be.
        """
        if self._bare is not None:
            return next(self._demux_bare(key_tick * self.tick_s), None)
        decoded = self._shown.timestamp + key_tick
        reordering = self._start - self._shown.timestamp
        for times in range(_MOST_SEEKS):
            self._seek(self._start + key_tick + times * reordering)
            packet = next(self._demux(), None)
            if packet is None or packet.dts is None or packet.dts > decoded:
                return None
            if packet.dts == decoded:
                return packet
            if reordering <= 0:
                return None
        return None

    def _demux_bare(self, time_s: float) -> Iterator[Packet[VideoStream]]:
        """Numbered packets from the last key frame at or before a time."""
        number = max(
            (key for key in self._bare_keys() if key * self.tick_s <= time_s + self.tick_s / 2),
            default=0,
        )
        offset = (self._bare or [(0, True)])[number][0]
        self._container.seek(offset, unsupported_byte_offset=True)
        for ahead, packet in enumerate(self._demux()):
            packet.pts = packet.dts = number + ahead
            yield packet

    def _demux(self) -> Iterator[Packet[VideoStream]]:
        """Packets from where the file stands; what cannot be read is passed over."""
        for _ in range(_MOST_READ_ERRORS):
            try:
                for packet in self._container.demux(self._stream):
                    if packet.size:  # an empty one marks the end
                        self._meter.count_packet(packet.size)
                        yield packet
            except container.DECODING_ERRORS:
                self.read_errors += 1
            else:
                return

    def _seek(self, pts: int) -> None:
        """Go to the last key frame at or before a time, or to the beginning if that fails."""
        try:
            self._container.seek(pts, stream=self._stream)
        except container.DECODING_ERRORS:
            self._rewind()

    def _rewind(self) -> None:
        """Go to the first packet.

        It is decoded before it is shown, so the time to seek to lies before that of the first
        frame, or is that one in formats that know no earlier.
        """
        if self._bare is None:
            for early_s in (_EARLY_S, 0.0):
                ticks = math.ceil(early_s / self.tick_s)
                with suppress(*container.DECODING_ERRORS):
                    self._container.seek(self._start - ticks, stream=self._stream)
                    return
        with suppress(*container.DECODING_ERRORS):
            self._container.seek(0, unsupported_byte_offset=True)
