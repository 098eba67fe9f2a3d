"""PlaNet (Weyand, Kostrikov and Philbin, ECCV 2016): one picture to its place, and its albums.

The original is a convolutional network with a softmax over 26,263 cells of the earth. Cells become
the classes of our four levels, so that what remains of it is a classifier of single pictures on
any backbone: ResNet-50 stands for its Inception network of about the same size, and a ViT with
image MAE's weights makes it the image model of CityGuessr (ECCV 2024). Of several frames each is
scored alone and log-probabilities are averaged, as `train.models.vit` does.

Its album: an LSTM reads the features of an album's photos one after another. Here the photos are a
clip's frames, and all of them are of one place: the state after the last frame, which has seen
them all, is the clip's feature. The width of the state is ours.

The LSTM is written out frame by frame, so that every runtime reads it and every multiplication is
counted as that of a plain linear layer; `torch.nn.LSTM` computes the same.

Shape suffixes: N clips, T frames, B pictures (N T), H and W pixels, C = 3 colours, D width.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from torch import Tensor, nn

from train.models.backbones import build_backbone, find_backbone, load_backbone
from train.models.base import FeatureModel, Kind
from train.models.heads import average_frames
from train.models.vit import ViTEncoder
from train.warmstart import warm_start


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanetConfig:
    """Shape of the network."""

    frames: int = 16
    """Of a clip."""
    image_px: int = 224
    backbone: str = "resnet50"
    """One of `train.models.backbones.BACKBONES`."""
    album: bool = False
    """Whether an LSTM reads the frames in their order; else each is scored alone."""
    album_width: int = 512
    """Of the LSTM's state."""

    def __post_init__(self) -> None:
        """Refuse a backbone that there is not, or that sees no pictures of this size."""
        find_backbone(self.backbone, self.image_px)

    @property
    def width(self) -> int:
        """D: of the feature that classifiers read."""
        return self.album_width if self.album else find_backbone(self.backbone, self.image_px).width

    @property
    def depth(self) -> int:
        """Layers of the backbone that learn at rates of their own."""
        return find_backbone(self.backbone, self.image_px).depth


class Lstm(nn.Module):
    """A long short-term memory (Hochreiter and Schmidhuber, 1997; with a forget gate, Gers, 2000).

    Rows of both matrices are those of `torch.nn.LSTM`: input, forget, cell and output gates.
    """

    def __init__(self, came: int, width: int) -> None:
        """Build with random weights; the forget gate begins open (Jozefowicz et al., ICML 2015).

        Args:
            came: width of what is read.
            width: of the state.
        """
        super().__init__()
        self.read = nn.Linear(came, 4 * width)
        self.recall = nn.Linear(width, 4 * width, bias=False)
        nn.init.xavier_uniform_(self.read.weight)
        for gate in self.recall.weight.data.chunk(4):
            nn.init.orthogonal_(gate)
        nn.init.zeros_(self.read.bias)
        nn.init.ones_(self.read.bias.data[width : 2 * width])

    def forward(self, features_NTD: Tensor) -> Tensor:
        """Read a sequence.  [N, T, came] -> the state after its end [N, D]."""
        reads_NTX = self.read(features_NTD)
        state_ND: Tensor | None = None
        cell_ND: Tensor | None = None
        for frame in range(features_NTD.shape[1]):
            gates_NX = reads_NTX[:, frame]
            if state_ND is not None:
                gates_NX = gates_NX + self.recall(state_ND)
            take_ND, keep_ND, new_ND, tell_ND = gates_NX.chunk(4, dim=1)
            came_ND = take_ND.sigmoid() * new_ND.tanh()
            cell_ND = came_ND if cell_ND is None else keep_ND.sigmoid() * cell_ND + came_ND
            state_ND = tell_ND.sigmoid() * cell_ND.tanh()
        assert state_ND is not None  # a clip has a frame
        return state_ND


class Planet(FeatureModel):
    """A backbone with classifiers on each frame, or on what an LSTM makes of the frames."""

    kind = "planet"
    undecayed = frozenset(("cls", "positions"))

    def add_layers(self, config: PlanetConfig) -> None:
        """The backbone, and the LSTM of an album; weights begin at random."""
        self.encoder = build_backbone(config.backbone, config.image_px)
        if config.album:
            came = find_backbone(config.backbone, config.image_px).width
            self.album = Lstm(came, config.album_width)
        self.add_heads()

    def layer_of(self, name: str) -> int:
        """Depth of a parameter: the backbone's, then the LSTM and the heads."""
        first, _, rest = name.partition(".")
        return self.encoder.layer_of(rest) if first == "encoder" else self.depth + 1

    def features(self, clip_NTHWC: Tensor, kept_NP: Tensor | None = None) -> Tensor:
        """One feature of each frame, or of each album.  uint8 [N, T, H, W, 3] -> [B or N, D]."""
        self.check_clip(clip_NTHWC)
        feature_BD = self.encoder.describe(self.normalise(clip_NTHWC.flatten(0, 1)))
        if not self.config.album:
            return feature_BD
        feature_ND: Tensor = self.album(feature_BD.unflatten(0, (-1, self.config.frames)))
        return feature_ND

    def answer(self, feature_ND: Tensor) -> dict[str, Tensor]:
        """Scores of albums, or of frames averaged over each clip; see `FeatureModel`."""
        found = super().answer(feature_ND)
        if self.config.album or self.config.frames == 1:
            return found
        return self.nest(average_frames(found, self.config.frames))  # sums of the mean's cities


def start_backbone(model: Planet, clips_NTHWC: Tensor) -> None:
    """For a ViT, wide weights and principal components; a ResNet is drawn wide enough."""
    if isinstance(model.encoder, ViTEncoder):
        warm_start(model, clips_NTHWC)


def one_frame(shape: PlanetConfig) -> PlanetConfig:
    """The shape for one frame of each clip.

    Raises:
        ValueError: an album is asked for.
    """
    if shape.album:
        raise ValueError(
            "model.album = true reads all frames of a clip: model.still must be none then"
        )
    return replace(shape, frames=1)


KIND = Kind(
    title="PlaNet",
    noun="a classifier of single pictures",
    model=Planet,
    shape=PlanetConfig,
    sizes={
        "tiny": PlanetConfig(image_px=112, backbone="resnet-tiny", album_width=128),
        "tiny-vit": PlanetConfig(image_px=112, backbone="vit-tiny", album_width=128),
        "resnet50": PlanetConfig(),
        "resnet101": PlanetConfig(backbone="resnet101"),
        "vit-base": PlanetConfig(backbone="vit-base"),
    },
    one_frame=one_frame,
    takes=frozenset(("warm_start",)),
    load=load_backbone,
    warm_start=start_backbone,
)
