"""One process of a training run: `torchrun -m tests.train_process OUT CHANGES`, CHANGES as JSON."""

import json
import sys
from pathlib import Path

from rich.console import Console

from train.config import load_preset
from train.processes import join_world
from train.training import train

if __name__ == "__main__":
    out, changes = Path(sys.argv[1]), json.loads(sys.argv[2])
    out.mkdir(exist_ok=True)
    with join_world("cpu") as world:
        train(
            load_preset("demo", **changes),
            out,
            world=world,
            workers=0,
            compiled=False,
            console=Console(stderr=True),
        )
