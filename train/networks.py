"""Where a published network lies on this machine: in a folder given, or fetched into one."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from geotag.hub import Fetched, fetch, is_whole
from geotag.models import check_licence, downloads_folder, read_known
from train.errors import WeightsError

if TYPE_CHECKING:
    from collections.abc import Callable

OURS = {"checkpoint.json": "a run of train.fit", "bundle.json": "a bundle"}
"""What a folder of ours is, by a file in it."""


def find_network(
    source: str | Path,
    *,
    with_tokenizer: bool,
    revision: str | None = None,
    is_accepted: bool = False,
    tell: Callable[[str], None] = lambda text: None,
) -> Fetched:
    """The folder of a network, fetched from the hub where it is not here yet.

    Args:
        source: a folder, a hub id (`owner/name`), or the name of a known model (`videomae-s`).
        with_tokenizer: whether a folder without one is not whole.
        revision: commit, branch or tag; None: the known one, or the newest.
        is_accepted: fetch weights for non-commercial use alone, too; those that are here already,
            fetched by consent or brought by hand, are not asked about again.
        tell: is told what is done.

    Raises:
        WeightsError: `source` is none of the three.
        ConfigError, OutputError: it cannot be fetched; the text says what to do.
    """
    folder, given = Path(source).expanduser(), str(source)
    if folder.is_dir():
        if made := next((name for name in OURS if (folder / name).is_file()), None):
            raise WeightsError(
                f"looking for the network {given}: this folder is {OURS[made]} (it holds {made}), "
                "and needed is a published network: a folder with config.json and the weights, or "
                "a hub id. To go on with a run, give --resume; a run of planet may begin isns."
            )
        return Fetched(folder=folder, revision=None)
    models = read_known()
    known = models.get(given) or next((one for one in models.values() if one.hub_id == given), None)
    if known is None and (given.startswith((".", "/", "~")) or given.count("/") != 1):
        raise WeightsError(
            f"looking for the network {given}: there is no such folder, and a hub id is "
            f"OWNER/NAME. Give a folder with config.json and the weights, a hub id, or one of "
            f"{', '.join(models)}."
        )
    digests = None
    target = downloads_folder(given)
    if known is None and not is_whole(target, with_tokenizer=with_tokenizer):
        tell(f"there is no folder {given} here: it is taken for a hub id, OWNER/NAME")
    if known is not None:
        is_usual = revision in (None, known.revision)
        target = downloads_folder(known.name if is_usual else known.hub_id)
        digests = known.digests if is_usual else None
        # A name that moves: what is here already will do, without a network.
        is_moving = is_usual and known.revision == "main"
        revision = None if is_moving else revision or known.revision
        if not is_whole(target, with_tokenizer=with_tokenizer):
            check_licence(known, is_accepted=is_accepted)
    return fetch(
        given if known is None else known.hub_id,
        target,
        revision=revision,
        sha256=digests,
        with_tokenizer=with_tokenizer,
        is_accepted=is_accepted,
        tell=tell,
    )
