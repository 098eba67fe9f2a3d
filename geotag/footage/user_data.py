"""What a camera writes into its pictures beside the picture: positions in H.264 and H.265 SEI.

Tesla's cameras put a message into every frame: unregistered user data that is a run of the byte
0x42, then 0x69, then a message in the encoding of protocol buffers. Whether a UUID of 16 bytes
comes first, as ITU-T H.264 D.1.7 has it, is not known here, so both are taken: the first bytes of
the run may be what stands in the place of the UUID.
"""

from __future__ import annotations

import gc
import re
from typing import TYPE_CHECKING, Any

from geotag.footage import container

if TYPE_CHECKING:
    from av.video.frame import VideoFrame

CODECS_WITH_USER_DATA = ("h264", "hevc")
MOST_PAYLOAD_BYTES = 4096
"""A position and what belongs to it take a tenth of that; longer messages are something else."""
_MOST_PAYLOADS = 8
"""Of one frame."""
_SEI_UNREGISTERED = 20
"""ffmpeg's AV_FRAME_DATA_SEI_UNREGISTERED; PyAV's own name for it has the same number."""
_UUID_BYTES = 16
_MARK = re.compile(rb"\x42+\x69", re.DOTALL)


def read_payloads(frame: VideoFrame) -> tuple[bytes, ...]:
    """The unregistered user data of a frame that may hold a position, whole, in their order."""
    # In PyAV a frame and its side data, once asked for, hold each other: free those of the frames
    # before, which are large. Costs little where `gc.freeze` was called after the imports.
    gc.collect()
    try:
        side_data: Any = frame.side_data  # its stubs differ from version to version
        found = [
            bytes(entry)
            for entry in side_data
            if entry.type.value == _SEI_UNREGISTERED and entry.buffer_size <= MOST_PAYLOAD_BYTES
        ]
    except container.DECODING_ERRORS:
        # PyAV gives none of them where it does not know the kind of one, such as Exif.
        return ()
    return tuple(payload for payload in found if holds_position(payload))[:_MOST_PAYLOADS]


def holds_position(payload: bytes) -> bool:
    """Whether a message begins as Tesla's do, with or without a UUID before."""
    return any(_MARK.match(payload, start) for start in (0, _UUID_BYTES))
