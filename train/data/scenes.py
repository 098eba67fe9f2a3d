"""Scene labels of a dataset's clips, in a file beside it, keyed by the names of the clips.

Shape suffixes: N clips, S scene groups.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from hashlib import sha256
from typing import TYPE_CHECKING, Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from geotag.errors import OutputError
from train.data.dataset import UNKNOWN_SCENE, BadSample
from train.data.world import SCENE_GROUPS
from train.errors import DatasetError
from train.files import write_aside

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from geotag.places.hierarchy import Hierarchy
    from train.data.dataset import ClipDataset, Entry, Sample, View

FILE_NAME = "scenes.safetensors"
SUM_TOLERANCE = 1e-3
"""How far the shares of a clip may be from 1; float32 sums of 16 are within 1e-6."""
_SCHEMA = 1
_KEY = "scenes"
"""Of the one entry of metadata: several would be written in any order, and bytes would differ."""
_ADVICE = "Make it anew with: python -m train.scenes --dataset SPEC --weights FILE --out FILE"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SceneLabels:
    """Labels of some clips, and how they were made."""

    facts: dict[str, Any]
    """JSON values: the network's file and digest, the frames looked at, the digest of the table of
    groups. Labels of other facts are never mixed."""
    soft: dict[str, NDArray[np.float32]] = field(default_factory=dict)
    """By name of the clip: shares of the scene groups, [16], sum 1."""
    majority: dict[str, int] = field(default_factory=dict)
    """By name of the clip: the group that most of its frames show."""
    bad: dict[str, str] = field(default_factory=dict)
    """Clips that could not be read, and why."""


def write_scenes(labels: SceneLabels, path: Path) -> None:
    """Write labels, sorted by name: the same labels give the same bytes.

    Raises:
        OutputError: the file cannot be written; what was there is untouched.
    """
    names = sorted(labels.soft)
    soft_NS = np.zeros((len(names), len(SCENE_GROUPS)), np.float32)
    for row, name in enumerate(names):
        soft_NS[row] = labels.soft[name]
    majority_N = np.array([labels.majority[name] for name in names], np.int64)
    record = {
        "schema": _SCHEMA,
        "groups": SCENE_GROUPS,
        "facts": labels.facts,
        "names": names,
        "bad": dict(sorted(labels.bad.items())),
    }
    metadata = {_KEY: json.dumps(record, sort_keys=True)}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_aside(path, save({"soft": soft_NS, "majority": majority_N}, metadata))
    except OSError as exc:
        raise OutputError(f"writing scene labels {path}: {exc.strerror or exc}.") from exc


def read_scenes(path: Path) -> SceneLabels:
    """Read labels.

    Raises:
        DatasetError: no such file, no scene labels, other groups, or shares that are none.
    """
    if not path.is_file():
        raise DatasetError(f"reading scene labels {path}: there is no such file. {_ADVICE}")
    try:
        with safe_open(path, framework="numpy") as opened:
            record = json.loads((opened.metadata() or {})[_KEY])
            soft_NS, majority_N = opened.get_tensor("soft"), opened.get_tensor("majority")
        names = [str(name) for name in record["names"]]
        facts, bad = dict(record["facts"]), dict(record["bad"])
        groups, schema = tuple(record["groups"]), record["schema"]
    except (SafetensorError, OSError, ValueError, KeyError, TypeError) as exc:
        raise DatasetError(
            f"reading scene labels {path}: no scene labels, or cut short ({exc!r}). {_ADVICE}"
        ) from exc
    if schema != _SCHEMA or groups != SCENE_GROUPS or len(set(names)) != len(names):
        raise DatasetError(
            f"reading scene labels {path}: schema {schema!r}, {len(groups)} groups, {len(names)} "
            f"clips; needed are schema {_SCHEMA}, the {len(SCENE_GROUPS)} groups of this version, "
            f"and each clip once. {_ADVICE}"
        )
    _check(soft_NS, majority_N, len(names), path)
    return SceneLabels(
        facts=facts,
        soft=dict(zip(names, soft_NS, strict=True)),
        majority=dict(zip(names, majority_N.tolist(), strict=True)),
        bad={str(name): str(reason) for name, reason in bad.items()},
    )


def with_scenes(dataset: ClipDataset, path: Path) -> ClipDataset:
    """The dataset, its samples labelled with the scenes of a file.

    A clip that the file does not have gets no scene, also where the dataset has one of its own:
    labels of two makers are never mixed.

    Raises:
        DatasetError: see `read_scenes`; or the file has none of the dataset's clips.
    """
    labels = read_scenes(path)
    names = {entry.name for entry in dataset.entries}
    found = names & labels.soft.keys()
    if not found and names:
        raise DatasetError(
            f"reading scene labels {path}: none of its {len(labels.soft)} clips is among the "
            f"{len(names)} of {dataset.name}, such as {dataset.entries[0].name!r}. It is of "
            f"another dataset or split. {_ADVICE}"
        )
    return LabelledClips(
        clips=dataset,
        soft={name: labels.soft[name] for name in sorted(found)},
        majority={name: labels.majority[name] for name in sorted(found)},
    )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LabelledClips:
    """A `ClipDataset` with scene labels from elsewhere."""

    clips: ClipDataset
    soft: Mapping[str, NDArray[np.float32]]
    majority: Mapping[str, int]

    @property
    def name(self) -> str:
        """That of the clips."""
        return self.clips.name

    @property
    def hierarchy(self) -> Hierarchy:
        """That of the clips."""
        return self.clips.hierarchy

    @property
    def places_csv(self) -> str:
        """That of the clips."""
        return self.clips.places_csv

    @property
    def entries(self) -> Sequence[Entry]:
        """Those of the clips."""
        return self.clips.entries

    def text_table(self) -> NDArray[np.float32] | None:
        """Embeddings of names that the clips came with; None where they came with none."""
        read = getattr(self.clips, "text_table", None)
        return None if read is None else read()

    @property
    def notes(self) -> tuple[str, ...]:
        """Those of the clips."""
        return tuple(getattr(self.clips, "notes", ()))

    @property
    def has_scenes(self) -> bool:
        """Whether any clip has one."""
        return bool(self.soft)

    @property
    def longest_s(self) -> float | None:
        """That of the clips; None where they have no time."""
        return getattr(self.clips, "longest_s", None)

    @property
    def labels_sha256(self) -> str:
        """Of the clips as they are, where they tell, and of the scenes."""
        told = ("content_sha256", "labels_sha256")
        found = sha256("".join(getattr(self.clips, name, "") for name in told).encode("utf-8"))
        for name, soft_S in self.soft.items():
            found.update(json.dumps([name, self.majority[name]]).encode("utf-8"))
            found.update(soft_S.tobytes())
        return found.hexdigest()

    def read(self, index: int, view: View) -> Sample | BadSample:
        """Read one clip, with its scene where there is one."""
        sample = self.clips.read(index, view)
        if isinstance(sample, BadSample):
            return sample
        name = self.clips.entries[index].name
        return replace(
            sample,
            scene_S=self.soft.get(name),
            scene_id=self.majority.get(name, UNKNOWN_SCENE),
        )


def _check(soft_NS: NDArray[Any], majority_N: NDArray[Any], clips: int, path: Path) -> None:
    groups = len(SCENE_GROUPS)
    if (
        soft_NS.shape != (clips, groups)
        or soft_NS.dtype != np.float32
        or majority_N.shape != (clips,)
        or majority_N.dtype != np.int64
    ):
        raise DatasetError(
            f"reading scene labels {path}: tensors of {soft_NS.shape} and {majority_N.shape} for "
            f"{clips} clips; needed are float32 [{clips}, {groups}] and int64 [{clips}]. {_ADVICE}"
        )
    sums_N = soft_NS.sum(axis=1)
    is_right_N = (abs(sums_N - 1) <= SUM_TOLERANCE) & (soft_NS >= 0).all(axis=1)
    is_right_N &= (majority_N >= 0) & (majority_N < groups)
    if not is_right_N.all():
        row = int((~is_right_N).argmax())
        raise DatasetError(
            f"reading scene labels {path}, row {row}: shares that sum to {sums_N[row]}, group "
            f"{majority_N[row]}; allowed are shares of 0 and more that sum to 1, and groups 0 to "
            f"{groups - 1}. {_ADVICE}"
        )
