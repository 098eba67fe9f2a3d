"""Packets in, frames out, each with its place in time; what does not decode is passed over."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from geotag.footage import container

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator

    from av.packet import Packet
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

    from geotag.footage.limits import Meter
    from geotag.footage.packets import PacketSource


class FrameDecoder:
    """Decodes the packets of one source."""

    def __init__(self, source: PacketSource, stream: VideoStream, meter: Meter) -> None:
        """Take over the decoder of a stream, which opens with the first packet."""
        self.errors = 0
        """Packets that did not decode, until someone resets it."""
        self._source = source
        self._stream = stream
        self._meter = meter

    def frames(
        self,
        packets: Iterable[Packet[VideoStream]],
        last_tick: int | None = None,
        *,
        needed: Collection[int] | None = None,
    ) -> Iterator[tuple[int, VideoFrame]]:
        """Decode packets, and give out the frames with their ticks.

        Args:
            packets: what to decode: from a key frame on without gaps, or key frames alone.
            last_tick: the last frame needed; after its packet the decoder is drained.
            needed: ticks of the frames that are needed; others that no frame refers to are passed
                over, which leaves those needed as they are. None for every frame.

        Raises:
            FootageError: it is more than a file may cost.
        """
        context = self._stream.codec_context
        try:
            yield from self._frames(packets, last_tick, needed)
        finally:  # also where nobody wants the rest: the next packets have nothing to do with it
            if context.is_open:
                context.flush_buffers()
                context.skip_frame = "DEFAULT"

    def _frames(
        self,
        packets: Iterable[Packet[VideoStream]],
        last_tick: int | None,
        needed: Collection[int] | None,
    ) -> Iterator[tuple[int, VideoFrame]]:
        waiting: deque[int | None] = deque()
        for packet in packets:
            if needed is not None:
                self._pass_over(packet, needed)
            waiting.append(self._source.tick(packet))
            errors = self.errors
            for frame in self._decode(packet):
                yield from self._timed(frame, waiting)
            if self.errors > errors and waiting:
                waiting.pop()
            if last_tick is not None and self._source.is_complete(packet, last_tick):
                break
        for frame in self._decode(None):
            yield from self._timed(frame, waiting)

    def _pass_over(self, packet: Packet[VideoStream], needed: Collection[int]) -> None:
        """Tell the decoder whether the next packet's picture may be left out.

        Where frames get their times by counting, none may be missing.
        """
        is_idle = (
            packet.pts is not None
            and not self._source.shows_in_order
            and self._source.tick(packet) not in needed
        )
        self._stream.codec_context.skip_frame = "NONREF" if is_idle else "DEFAULT"

    def _timed(
        self, frame: VideoFrame, waiting: deque[int | None]
    ) -> Iterator[tuple[int, VideoFrame]]:
        """The frame with its tick, if it has one; `waiting` are those of the packets fed."""
        self._meter.count_frame(frame.width, frame.height)
        next_tick = waiting.popleft() if waiting else None
        if self._source.shows_in_order:
            tick = next_tick
        else:
            tick = self._source.tick_of(frame.dts if frame.pts is None else frame.pts)
        if tick is not None:
            yield tick, frame

    def _decode(self, packet: Packet[VideoStream] | None) -> list[VideoFrame]:
        """Frames that come out when a packet goes in; a broken packet is passed over."""
        try:
            return self._stream.codec_context.decode(packet)
        except container.DECODING_ERRORS:
            self.errors += packet is not None
            return []
