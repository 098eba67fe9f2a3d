"""Fetching a published network: from the hub, checked byte by byte, or from files brought by hand.

Both lie in one folder. A download that was cut off goes on where it stopped; what arrives is
compared with the hub's record of every file: SHA-256 for large files, the git hash for small ones.
`huggingface_hub` does the talking. Its own cache is used where it holds the whole network; its
downloads into it begin anew after a stop (version 2), so only its `http_get` is used for them.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engines.bundle import sha256_of
from geotag.errors import ConfigError, OutputError

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
TOKENIZERS = ("tokenizer.json", "vocab.json", "spiece.model", "tokenizer.model")
WEIGHTS = ("model.safetensors", "pytorch_model.bin")
"""In the order of preference; larger networks have several parts and an index."""


COMMIT_FILE = ".commit"
"""Beside downloaded files: the commit that they are of."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fetched:
    """A network's files on this machine."""

    folder: Path
    revision: str | None
    """The commit they are of; None for files brought by hand."""


def fetch(
    hub_id: str,
    folder: Path,
    *,
    revision: str | None = None,
    sha256: Mapping[str, str] | None = None,
    with_tokenizer: bool = True,
    is_accepted: bool = False,
    tell: Callable[[str], None] = lambda text: None,
) -> Fetched:
    """Get a network's files.

    Args:
        hub_id: `owner/name`.
        folder: where they are put, and where a person may have put them: then no network is asked.
        revision: commit, branch or tag; None: the newest.
        sha256: digests known beforehand, by file name.
        with_tokenizer: whether a folder without a tokenizer is not whole; encoders have none.
        is_accepted: fetch weights for non-commercial use alone, too.
        tell: is told what is done.

    Raises:
        ConfigError: `huggingface_hub` is missing; there is no network, no such repository, or no
            right to read it; or a file is not what it should be. The text says what to do.
        OutputError: the folder cannot be written.
    """
    commit = _commit_of(folder)
    if is_whole(folder, with_tokenizer=with_tokenizer) and (
        commit is None or revision in (None, commit)
    ):
        tell(f"taking the files that lie in {folder}")
        check_digests(folder, sha256 or {})
        return Fetched(folder=folder, revision=commit)
    try:
        from huggingface_hub import HfApi, constants
    except ImportError as exc:
        raise ConfigError(
            f"fetching {hub_id}: {exc}. Install what models need: "
            "pip install '.[cpu,models]' in geotag's source folder"
        ) from exc
    kept = _kept(hub_id, revision, with_tokenizer=with_tokenizer)
    if kept is not None:
        tell(f"taking what the hub's own cache holds: {kept}")
        check_digests(kept, sha256 or {})
        return Fetched(folder=kept, revision=kept.name)
    tell(f"fetching {hub_id} from {constants.ENDPOINT}")
    try:
        listing = HfApi().model_info(hub_id, revision=revision, files_metadata=True)
        _check_licence(hub_id, listing, is_accepted=is_accepted)
        wanted = choose_files(entry.rfilename for entry in listing.siblings or ())
        by_name = {entry.rfilename: entry for entry in listing.siblings or ()}
        entries = [by_name[name] for name in wanted]
        tell(f"  {sum(entry.size or 0 for entry in entries) / 1e6:,.0f} MB, less what is there")
        for entry in entries:
            _download(hub_id, str(listing.sha), entry, folder)
    except (ConfigError, OutputError):
        raise
    except Exception as exc:  # told apart below: the library has a dozen of them
        raise ConfigError(_explain(exc, hub_id, revision, folder)) from exc
    check_digests(folder, sha256 or {})
    return Fetched(folder=folder, revision=listing.sha)


def _download(hub_id: str, commit: str, entry: Any, folder: Path) -> None:  # noqa: ANN401
    """Fetch one file, unless it is there; a part of it that is there is gone on with."""
    from huggingface_hub import hf_hub_url
    from huggingface_hub.file_download import http_get
    from huggingface_hub.utils import build_hf_headers

    path = folder / entry.rfilename
    part = path.with_name(f"{path.name}.part")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / COMMIT_FILE).write_text(commit, encoding="ascii")
        if path.is_file() and _is_right(path, entry):
            return
        with part.open("ab") as stream:
            if entry.size is not None and stream.tell() > entry.size:
                stream.truncate(0)
                stream.seek(0)
            http_get(
                hf_hub_url(hub_id, entry.rfilename, revision=commit),
                stream,
                resume_size=stream.tell(),
                headers=build_hf_headers(),
                expected_size=entry.size,
            )
        if not _is_right(part, entry):
            part.unlink()
            raise ConfigError(
                f"checking {path.name} of {hub_id}: it is not what the hub says it is; the "
                "download was damaged, and is deleted. Run the same command again."
            )
        part.replace(path)
    except OSError as exc:
        if getattr(exc, "errno", None) is None:  # the hub's errors are OSErrors as well
            raise
        raise OutputError(f"downloading into {folder}: {exc.strerror or exc}.") from exc


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
    """The files of a repository that are needed: configuration, tokenizer, one kind of weights.

    In the order in which they are fetched: what tells that a folder is whole comes last.
    """
    names = list(names)
    small = [name for name in names if any(fnmatch(name, one) for one in SMALL_FILES)]
    for kind in WEIGHTS:
        if kind in names:
            return (*small, kind)
        if f"{kind}.index.json" in names:
            stem, _, ending = kind.rpartition(".")
            parts = [name for name in names if fnmatch(name, f"{stem}-*-of-*.{ending}")]
            return (*small, *parts, f"{kind}.index.json")
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


def _is_right(path: Path, entry: Any) -> bool:  # noqa: ANN401
    """Whether a file is what the hub's record of it says."""
    lfs = getattr(entry, "lfs", None)
    if lfs is not None:
        return sha256_of(path) == str(lfs.sha256)
    if not entry.blob_id:
        return True
    content = path.read_bytes()
    digest = hashlib.sha1(usedforsecurity=False)
    digest.update(b"blob %d\0" % len(content) + content)
    return digest.hexdigest() == str(entry.blob_id)


def _commit_of(folder: Path) -> str | None:
    try:
        return (folder / COMMIT_FILE).read_text(encoding="ascii").strip() or None
    except (OSError, UnicodeDecodeError):
        return None


def is_whole(folder: Path, *, with_tokenizer: bool) -> bool:
    """Whether a folder holds configuration and weights, and no part of a file.

    Weights come last, so that all else of a repository is there when they are. What needs a
    tokenizer needs to know of pictures, too; some encoders have no file for that.
    """
    needed = [
        ("config.json",),
        tuple(name for kind in WEIGHTS for name in (kind, f"{kind}.index.json")),
    ]
    if with_tokenizer:
        needed += [TOKENIZERS, ("preprocessor_config.json", "processor_config.json")]
    return not any(folder.glob("*.part")) and all(
        any((folder / name).is_file() for name in names) for names in needed
    )


def _kept(hub_id: str, revision: str | None, *, with_tokenizer: bool) -> Path | None:
    """The network in the hub's own cache, where some other program has put it."""
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(hub_id, "config.json", revision=revision)
    if not isinstance(found, str):
        return None
    folder = Path(found).parent
    return folder if is_whole(folder, with_tokenizer=with_tokenizer) else None


def _is_offline(exc: Exception) -> bool:
    """Whether the hub could not be reached, as against having said no."""
    return getattr(exc, "response", None) is None


def _explain(
    exc: Exception,
    hub_id: str,
    revision: str | None,
    folder: Path,
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
    tree = f"{page}/tree/{revision or 'main'}"
    return (
        f"fetching {hub_id}: {constants.ENDPOINT} cannot be reached "
        f"({type(exc).__name__}: {str(exc).splitlines()[0] if str(exc) else 'no answer'}).\n"
        "  With a network: run the same command again; it goes on where it stopped.\n"
        f"  Without one: on another machine download from {tree}\n"
        "  config.json, preprocessor_config.json, all tokenizer files (tokenizer.json, "
        "tokenizer_config.json, special_tokens_map.json, vocab.json, merges.txt, spiece.model, "
        f"those that are there), README.md, and {WEIGHTS[0]} (or, where it is missing, "
        f"{WEIGHTS[1]});\n  put them into {folder}, and repeat the command."
    )
