"""A whole run: how long it goes on, what is written and what is kept."""

from __future__ import annotations

import csv
import itertools
import json
import random
import subprocess
import time
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from engines.choose import usable_cores
from geotag.places.hierarchy import decode
from train.build import build_model, open_sources, scoring_view, training_view
from train.checkpoint import save_checkpoint
from train.data.loading import Plan, reading_batches, training_batches
from train.data.sources import notes_of
from train.data.world import SCENE_GROUPS
from train.errors import TrainError
from train.guards import (
    StopRequests,
    check_dataset,
    describe_sources,
    warn_of_parts,
    with_advice,
)
from train.loop import Learner
from train.models.kinds import CUSTOM, find_kind, size_of
from train.resume import FOLDER, STATE, Progress, load_state, save_state
from train.stills import Stills

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray
    from rich.console import Console

    from engines.bundle import Level
    from train.build import Sources
    from train.config import TrainConfig
    from train.data.dataset import BadSample, ClipDataset
    from train.data.loading import Batch
    from train.models.base import GeoModel
    from train.processes import World

METRICS = "metrics.jsonl"
LEVEL_WORDS: dict[Level, str] = {
    "city": "cities",
    "state": "states",
    "country": "countries",
    "continent": "continents",
}
LOG_EVERY = 10
"""Steps between two lines of metrics.jsonl."""
SAVE_EVERY_S = 600.0
"""Between two states to go on from; what is trained does not depend on it."""
SCORED_AT_ONCE = 32
MOST_BAD_SHARE = 0.5
"""A run with more unreadable clips than this stops: something is wrong with the dataset."""


def train(
    config: TrainConfig,
    run: Path,
    *,
    world: World,
    workers: int,
    compiled: bool,
    console: Console,
    tensorboard: bool = False,
    is_accepted: bool = False,
) -> None:
    """Train, or go on where `run` stopped; leaves the checkpoint and `metrics.jsonl` in `run`.

    Raises:
        TrainError: the run cannot begin or go on; the text says what to try.
        DatasetError: the dataset is unusable.
    """
    run.mkdir(parents=True, exist_ok=True)
    seed_everything(config.seed)
    if not world.is_gpu:
        # Threads of one matrix product wait for each other: on a core that reads, all would wait.
        torch.set_num_threads(max(1, usable_cores() // world.size - workers))
    sources = open_sources(config)
    state = load_state(run) if (run / FOLDER / STATE).is_file() else None
    described = describe_sources(sources)
    if state is not None:
        check_dataset(state, described, sources.train.name)

    def tell(text: str) -> None:
        if world.is_first:
            console.print(text, markup=False, highlight=False)

    with with_advice(config):
        with world.first_alone():  # one of them fetches what is missing
            model, facts = build_model(
                config,
                sources,
                architecture=None if state is None else state.architecture,
                is_accepted=is_accepted,
                tell=tell,
            )
        learner = Learner(
            model,
            config,
            world,
            hierarchy=sources.train.hierarchy,
            steps=sources.steps,
            texts_KE=sources.texts_KE,
            compiled=compiled,
        )
        progress = Progress(step=0, steps=sources.steps)
        if state is not None:
            progress, facts = state.progress, state.facts
            learner.load(state.read_tensors())
            _forget_lines(run / METRICS, progress.step, world)
        if world.is_first:
            _announce(config, model, sources, run, progress, console)
        _Run(
            config=config,
            folder=run,
            world=world,
            sources=sources,
            described=described,
            learner=learner,
            workers=workers,
            console=console,
            tensorboard=tensorboard,
            facts=facts,
        ).go(progress)


class _Run:
    """The steps of a run, and what is written on the way."""

    def __init__(
        self,
        *,
        config: TrainConfig,
        folder: Path,
        world: World,
        sources: Sources,
        described: dict[str, Any],
        learner: Learner,
        workers: int,
        console: Console,
        tensorboard: bool,
        facts: dict[str, Any],
    ) -> None:
        self.config, self.folder, self.world, self.sources = config, folder, world, sources
        self.described = described
        self.learner, self.workers, self.console = learner, workers, console
        self.tensorboard, self.facts = tensorboard, facts
        self.unread: tuple[BadSample, ...] = ()
        self.plan = Plan(
            samples=len(sources.train.entries),
            steps=sources.steps,
            batch=config.batch,
            views=config.views,
            seed=config.seed,
        )
        each = config.eval_every * len(sources.train.entries) / config.batch
        is_scored = bool(config.eval_every) and sources.chosen_at is not None
        self.score_every = max(1, round(each)) if is_scored else 0

    def go(self, progress: Progress) -> None:
        """From a step to the last.

        Raises:
            KeyboardInterrupt: somebody asked to stop; the state was kept after the step at hand.
        """
        saved_s = time.monotonic()
        batches = training_batches(
            self.sources.train,
            training_view(self.config, self.learner.model),
            self.plan,
            scenes=len(SCENE_GROUPS),
            workers=self.workers,
            start=progress.step,
            share=(self.world.rank, self.world.size),
            pin_memory=self.world.is_gpu,
        )
        with self._metrics() as write, StopRequests() as stop:
            for batch in self._shown(batches, progress.step):
                self.learner.step(batch, progress.step)
                progress = replace(progress, step=progress.step + 1)
                self.unread += batch.bad
                is_last = progress.step == self.sources.steps
                is_pause = is_last or progress.step % LOG_EVERY == 0
                if is_pause:
                    can_go_on = (self.folder / FOLDER / STATE).is_file()
                    write(self.learner.report(progress.step, can_go_on=can_go_on))
                if is_last or is_pause or self._is_scoring(progress.step):
                    progress = self._remember_bad(progress)
                if is_last or self._is_scoring(progress.step):
                    progress = self._keep_best(progress, write)
                is_time = time.monotonic() - saved_s > SAVE_EVERY_S
                # Processes speak with each other at pauses only: it takes time.
                is_asked = (is_pause or self.world.size == 1) and self._any(stop.is_asked)
                if is_asked:
                    progress = self._remember_bad(progress)
                if is_last or is_asked or (is_pause and self._any(is_time)):
                    self._save(progress)
                    saved_s = time.monotonic()
                if is_asked and not is_last:
                    raise KeyboardInterrupt

    def _is_scoring(self, step: int) -> bool:
        return bool(self.score_every) and step % self.score_every == 0

    def _any(self, wanted: bool) -> bool:
        """Whether any process wants something."""
        return bool(self.world.sum(torch.tensor(float(wanted), device=self.world.device)).item())

    def _keep_best(self, progress: Progress, write: Callable[[dict[str, float]], None]) -> Progress:
        """Keep the weights if they are the best so far, or if nothing is compared."""
        with self.learner.best_weights() as model:
            score = None
            if self.score_every:
                score = self._score(model)
                level = self._chosen_at()
                write({"step": progress.step, f"selection_{level}_top1": score})
                if self.world.is_first:
                    self.console.print(
                        f"step {progress.step}: {100 * score:.1f} % of {LEVEL_WORDS[level]} right "
                        f"on {self.sources.chosen_on.name}",
                        markup=False,
                        highlight=False,
                    )
                if progress.best_score is not None and score <= progress.best_score:
                    return progress
            if self.world.is_first:
                self._save_model(model, progress, score)
            self.world.wait()
        return replace(progress, best_score=score, best_step=progress.step)

    def _chosen_at(self) -> Level:
        """The level by which weights are chosen; there is one where they are."""
        assert self.sources.chosen_at is not None
        return self.sources.chosen_at

    def _score(self, model: GeoModel) -> float:
        """Share of right answers on what the best weights are chosen on."""
        dataset, level_chosen = self.sources.chosen_on, self._chosen_at()
        ancestors = dataset.hierarchy.ancestors[level_chosen]
        count = min(self.config.val_clips, len(dataset.entries))
        chosen = np.linspace(0, len(dataset.entries), count, endpoint=False).astype(int).tolist()
        batches = reading_batches(
            dataset,
            scoring_view(self.config, model),
            size=SCORED_AT_ONCE,
            scenes=len(SCENE_GROUPS),
            workers=self.workers,
            indices=chosen[self.world.rank :: self.world.size],
        )
        counts = torch.zeros(2, dtype=torch.float64)
        still = self.config.model.still
        stills = None if still == "none" else Stills(still)
        for batch in batches:
            if not len(batch):
                continue
            clip_NTHWC = batch.clip_NTHWC
            if stills is not None:
                clip_NTHWC = stills.of(clip_NTHWC)
            with torch.inference_mode():
                outputs = model(clip_NTHWC.to(self.world.device))
            logits: dict[Level, NDArray[np.float32]] = {
                level: outputs[level].float().cpu().numpy() for level in dataset.hierarchy.places
            }
            mode = self.config.selection_decoding
            found = decode(logits, dataset.hierarchy, mode).labels[level_chosen]
            wanted = ancestors[batch.city_N.numpy()]
            counts += torch.tensor([(found == wanted).sum(), len(batch)])
        right, total = self.world.sum(counts.to(self.world.device)).tolist()
        if not total:
            raise TrainError(
                f"choosing weights on {dataset.name}: it holds no clip that can be read. "
                "Choose a dataset with a val split, or set eval_every = 0."
            )
        return right / total

    def _save_model(self, model: GeoModel, progress: Progress, score: float | None) -> None:
        facts = training_facts(self.config, self.sources.train) | self.facts
        facts |= {"step": progress.step, "bad_samples": len(progress.bad)}
        if score is not None:
            facts |= {
                "selected_on": self.sources.chosen_on.name,
                f"selected_{self._chosen_at()}_top1": score,
            }
        save_checkpoint(self.folder, model, places_csv=self.sources.train.places_csv, facts=facts)

    def _save(self, progress: Progress) -> None:
        if self.world.is_first:
            save_state(
                self.folder,
                self.config,
                progress,
                self.learner.tensors(),
                self.learner.model.config,
                self.facts,
                self.described,
            )
            _write_bad(self.folder / "bad_samples.csv", progress.bad)
        self.world.wait()

    def _remember_bad(self, progress: Progress) -> Progress:
        """Take note of samples that could not be read by any process, once each.

        Raises:
            TrainError: there are so many that the dataset must be wrong.
        """
        bad = [(sample.name, sample.reason) for sample in self.unread]
        self.unread = ()
        if self.world.size > 1:
            everyone: list[Any] = [None] * self.world.size
            torch.distributed.all_gather_object(everyone, bad)
            bad = [pair for found in everyone for pair in found]
        known = {**progress.bad, **dict(bad)}
        if self.world.is_first:
            for name in known.keys() - progress.bad.keys():
                self.console.print(f"left out {name}: {known[name]}", markup=False, highlight=False)
        seen = min(progress.step * self.config.batch / self.config.views, self.plan.samples)
        if len(known) > MOST_BAD_SHARE * max(seen, 20):
            raise TrainError(
                f"{len(known)} of the first {seen:.0f} clips of {self.sources.train.name} cannot "
                f"be read, such as {next(iter(known.values()))}. Check the dataset."
            )
        return replace(progress, bad=known)

    @contextmanager
    def _metrics(self) -> Iterator[Any]:
        """Takes records; the first process writes them."""
        if not self.world.is_first:
            yield lambda record: None
            return
        board = _open_tensorboard(self.folder) if self.tensorboard else None
        with (self.folder / METRICS).open("a", encoding="utf-8") as lines:

            def write(record: dict[str, float]) -> None:
                lines.write(json.dumps({**record, "step": int(record["step"])}) + "\n")
                lines.flush()
                for name, value in record.items():
                    if board is not None and name != "step":
                        board.add_scalar(name, value, int(record["step"]))

            try:
                yield write
            finally:
                if board is not None:
                    board.close()

    def _shown(self, batches: Iterator[Batch], start: int) -> Iterator[Batch]:
        columns = (
            TextColumn("training"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("steps,"),
            TextColumn("{task.fields[speed]:.1f} clips/s,"),
            TimeRemainingColumn(),
        )
        started_s = time.monotonic()
        with Bar(*columns, console=self.console, disable=not self.world.is_first) as bar:
            task = bar.add_task("", total=self.sources.steps, completed=start, speed=0.0)
            for done, batch in enumerate(batches, start=1):
                yield batch
                speed = done * self.config.batch / (time.monotonic() - started_s)
                bar.update(task, advance=1, speed=speed)


def training_facts(config: TrainConfig, dataset: ClipDataset) -> dict[str, Any]:
    """What `checkpoint.json` and later the bundle say about how the weights came to be."""
    facts = asdict(config)
    longest_s = getattr(dataset, "longest_s", None)
    if longest_s is not None:  # no clip is longer than its sample
        for name in ("min_span_s", "max_span_s"):
            facts["sampling"][name] = min(facts["sampling"][name], longest_s)
    return {
        **facts,
        "dataset": dataset.name,
        "clips": len(dataset.entries),
        "commit": _git_commit(),
        "torch": torch.__version__,
    }


def seed_everything(seed: int) -> None:
    """Seed every random source that training touches."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def _announce(
    config: TrainConfig,
    model: GeoModel,
    sources: Sources,
    run: Path,
    progress: Progress,
    console: Console,
) -> None:
    """Say what is about to happen, and what looks wrong."""
    done = f", going on at step {progress.step}" if progress.step else ""
    console.print(
        f"training {config.preset} ({_network(config, model)}, {sources.train.name}, "
        f"{sources.steps} steps of {config.batch} clips{done}) into {run}",
        markup=False,
        highlight=False,
    )
    for note in notes_of(sources.train):
        console.print(note, markup=False, highlight=False)
    if config.data == "rendered":
        return
    for warning in warn_of_parts(config, sources):
        console.print(warning, markup=False, highlight=False)
    cities = sources.train.hierarchy.places["city"]
    counts = np.bincount([entry.city_id for entry in sources.train.entries], minlength=len(cities))
    empty = [cities[index].name for index in np.flatnonzero(counts == 0)]
    if empty:
        console.print(
            f"warning: {len(empty)} of {len(cities)} cities have no clip to learn from, such as "
            f"{', '.join(empty[:5])}: the model will never answer them. Add footage of them, or "
            "take them out of the labels.",
            markup=False,
        )


def _network(config: TrainConfig, model: GeoModel) -> str:
    """What is trained, in a word or two; weights to begin from bring their own size."""
    kind = config.model.kind
    size = size_of(find_kind(kind), model.config) if config.pretrained else config.model.size
    if size == CUSTOM:
        return f"{kind} on {config.pretrained}"
    return size if kind == "videomae" else f"{kind} {size}"


def _forget_lines(path: Path, step: int, world: World) -> None:
    """Drop what was logged after the state that the run goes on from."""
    if not world.is_first or not path.is_file():
        return
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    kept = itertools.takewhile(lambda line: json.loads(line)["step"] <= step, lines)
    path.write_text("".join(kept), encoding="utf-8")


def _write_bad(path: Path, bad: dict[str, str]) -> None:
    if not bad:
        path.unlink(missing_ok=True)
        return
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(("sample", "reason"))
        writer.writerows(bad.items())


def _open_tensorboard(folder: Path) -> Any:  # noqa: ANN401
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as exc:
        raise TrainError(
            "writing events for TensorBoard: it is not installed. Install it with "
            "`pip install tensorboard`, or leave out --tensorboard; metrics.jsonl has the same."
        ) from exc
    return SummaryWriter(str(folder / "tensorboard"))


def _git_commit() -> str | None:
    """Of this source tree; None where it was installed without its history, or git is missing."""
    root = Path(__file__).parents[1]
    if not (root / ".git").exists():
        return None
    try:
        found = subprocess.run(
            ["git", "rev-parse", "HEAD"], cwd=root, capture_output=True, text=True, check=False
        )
    except OSError:
        return None
    return found.stdout.strip() or None
