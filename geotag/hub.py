"""Fetching a published network: from the hub, checked byte by byte, or from files brought by hand.

`huggingface_hub` downloads, goes on where an earlier download stopped, and keeps what it has in
its own cache. What arrives is compared with the hub's record of every file: SHA-256 for large
files, the git hash for small ones.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engines.bundle import sha256_of
from geotag.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

SMALL_FILES = (
    "config.json",
    "preprocessor_config.json",
    "processor_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "spiece.model",
    "tokenizer.model",
    "README.md",
    "LICENSE*",
)
WEIGHTS = ("model.safetensors", "pytorch_model.bin")
"""In the order of preference; larger networks have several parts and an index."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fetched:
    """A network's files on this machine."""

    folder: Path
    revision: str | None
    """The commit they are of; None for files brought by hand."""


def fetch(
    hub_id: str,
    *,
    revision: str | None = None,
    brought: Path | None = None,
    sha256: Mapping[str, str] | None = None,
    is_accepted: bool = False,
    tell: Callable[[str], None] = lambda text: None,
) -> Fetched:
    """Get a network's files.

    Args:
        hub_id: `owner/name`.
        revision: commit, branch or tag; None: the newest.
        brought: where a person may have put the files; looked at first.
        sha256: digests known beforehand, by file name.
        is_accepted: fetch weights for non-commercial use alone, too.
        tell: is told what is done.

    Raises:
        ConfigError: `huggingface_hub` is missing; there is no network, no such repository, or no
            right to read it; or a file is not what it should be. The text says what to do.
    """
    if brought is not None and (brought / "config.json").is_file():
        tell(f"taking the files that lie in {brought}")
        check_digests(brought, sha256 or {})
        return Fetched(folder=brought, revision=None)
    try:
        from huggingface_hub import HfApi, constants, snapshot_download
    except ImportError as exc:
        raise ConfigError(
            f"fetching {hub_id}: {exc}. Install what models need: "
            "pip install '.[cpu,models]' in geotag's source folder"
        ) from exc
    tell(f"fetching {hub_id} from {constants.ENDPOINT}")
    try:
        listing = HfApi().model_info(hub_id, revision=revision, files_metadata=True)
        _check_licence(hub_id, listing, is_accepted=is_accepted)
        wanted = choose_files(entry.rfilename for entry in listing.siblings or ())
        folder = Path(snapshot_download(hub_id, revision=listing.sha, allow_patterns=list(wanted)))
    except ConfigError:
        raise
    except Exception as exc:  # told apart below: the library has a dozen of them
        kept = _kept(hub_id, revision) if _is_offline(exc) else None
        if kept is None:
            raise ConfigError(_explain(exc, hub_id, revision, brought)) from exc
        tell(f"no network; taking what an earlier download left in {kept}")
        check_digests(kept, sha256 or {})
        return Fetched(folder=kept, revision=kept.name)
    for entry in listing.siblings or ():
        if entry.rfilename in wanted:
            _check(folder / entry.rfilename, entry)
    check_digests(folder, sha256 or {})
    return Fetched(folder=folder, revision=listing.sha)


def _check_licence(hub_id: str, listing: Any, *, is_accepted: bool) -> None:  # noqa: ANN401
    """Refuse what its card says is for non-commercial use, before a byte of it is fetched."""
    card = getattr(listing, "card_data", None)
    licence = str(getattr(card, "license", None) or "not stated")
    if "nc" in licence.casefold().split("-") and not is_accepted:
        raise ConfigError(
            f"fetching {hub_id}: its weights are under {licence}: non-commercial use only. Nothing "
            "was downloaded. If your use is allowed, repeat the command with --accept-licence."
        )


def choose_files(names: Iterable[str]) -> tuple[str, ...]:
    """The files of a repository that are needed: configuration, tokenizer, one kind of weights."""
    names = list(names)
    small = [name for name in names if any(fnmatch(name, one) for one in SMALL_FILES)]
    for kind in WEIGHTS:
        if kind in names:
            return (*small, kind)
        if f"{kind}.index.json" in names:
            stem, _, ending = kind.rpartition(".")
            parts = [name for name in names if fnmatch(name, f"{stem}-*-of-*.{ending}")]
            return (*small, f"{kind}.index.json", *parts)
    return tuple(small)


def check_digests(folder: Path, sha256: Mapping[str, str]) -> None:
    """Compare files with digests known beforehand; those that are not there are left alone.

    Raises:
        ConfigError: one differs.
    """
    for name, wanted in sha256.items():
        if (folder / name).is_file() and sha256_of(folder / name) != wanted:
            raise ConfigError(
                f"checking {folder / name}: its SHA-256 is not {wanted[:12]}..., which is the "
                "published one. The file was cut short or changed: delete it and fetch it again."
            )


def _check(path: Path, entry: Any) -> None:  # noqa: ANN401
    """Compare a file with the hub's record of it.  Raises ConfigError."""
    if not path.is_file():
        raise ConfigError(f"checking {path}: it was not downloaded. Run the same command again.")
    lfs = getattr(entry, "lfs", None)
    if lfs is not None:
        is_same = sha256_of(path) == lfs.sha256
    elif entry.blob_id:
        content = path.read_bytes()
        digest = hashlib.sha1(usedforsecurity=False)
        digest.update(b"blob %d\0" % len(content) + content)
        is_same = digest.hexdigest() == entry.blob_id
    else:
        return
    if not is_same:
        raise ConfigError(
            f"checking {path}: it is not what the hub says it is; the download was damaged. "
            f"Delete {os.path.realpath(path)} and run the same command again."
        )


def _kept(hub_id: str, revision: str | None) -> Path | None:
    """The folder of an earlier, whole download, without a network."""
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(hub_id, "config.json", revision=revision)
    if not isinstance(found, str):
        return None
    folder = Path(found).parent
    has_weights = any(
        (folder / name).is_file() or (folder / f"{name}.index.json").is_file() for name in WEIGHTS
    )
    return folder if has_weights else None


def _is_offline(exc: Exception) -> bool:
    """Whether the hub could not be reached, as against having said no."""
    return getattr(exc, "response", None) is None


def _explain(
    exc: Exception,
    hub_id: str,
    revision: str | None,
    brought: Path | None,
) -> str:
    from huggingface_hub import constants, errors

    page = f"{constants.ENDPOINT}/{hub_id}"
    if isinstance(exc, errors.GatedRepoError):
        return (
            f"fetching {hub_id}: its owner asks for consent first. Open {page} in a browser, "
            "accept the conditions, run `hf auth login`, and repeat the command."
        )
    if isinstance(exc, errors.RepositoryNotFoundError):
        return (
            f"fetching {hub_id}: {constants.ENDPOINT} has no such repository, or it is "
            "private. A hub id is OWNER/NAME, such as openai/clip-vit-base-patch32; for a folder "
            "on this machine give its path."
        )
    if isinstance(exc, errors.RevisionNotFoundError):
        return f"fetching {hub_id}: it has no revision {revision!r}. Look at {page}/commits/main."
    if isinstance(exc, errors.HFValidationError):
        return (
            f"fetching {hub_id!r}: this is no hub id, and no folder of that name is here. A hub id "
            "is OWNER/NAME, such as openai/clip-vit-base-patch32."
        )
    if not _is_offline(exc):
        return f"fetching {hub_id}: {exc}. Try again later, or bring the files by hand."
    where = (
        f"put them into {brought}, and repeat the command"
        if brought is not None
        else "put them into one folder, and give its path instead"
    )
    tree = f"{page}/tree/{revision or 'main'}"
    return (
        f"fetching {hub_id}: {constants.ENDPOINT} cannot be reached "
        f"({type(exc).__name__}: {str(exc).splitlines()[0] if str(exc) else 'no answer'}).\n"
        "  With a network: run the same command again; it goes on where it stopped.\n"
        f"  Without one: on another machine download from {tree}\n"
        "  config.json, preprocessor_config.json, all tokenizer files (tokenizer.json, "
        "tokenizer_config.json, special_tokens_map.json, vocab.json, merges.txt, spiece.model, "
        f"those that are there), README.md, and {WEIGHTS[0]} (or, where it is missing, "
        f"{WEIGHTS[1]});\n  {where}."
    )
