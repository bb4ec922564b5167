"""Data classes: scenes (in units of 1/64 of the picture's side) and finished samples.

A scene holds all that `draw` needs, so its description is the same at every picture size. The hash of the description
identifies a sample. Called by the task modules, `draw` and `make`.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from pvc.lab.synthetic.seeding import Split
from pvc.lab.synthetic.vocabulary import Rgb

if TYPE_CHECKING:
    from pvc.lab.synthetic.pages.canvas import Canvas, Reel

UNITS = 64.0  # side of every scene in units
PATCH = 8  # pixels per side of a labelled patch
LEVELS = 4  # of difficulty, from 1
Kind = Literal["image", "video"]
Track = tuple[tuple[float, float] | None, ...]  # centre per frame in units; None if the item is not in it


@dataclass(frozen=True)
class Backdrop:
    """A background: one colour, or a mix with `colour2` by a texture.

    Attributes:
        colour: first colour.
        colour2: second colour; None for a plain background.
        angle: direction in degrees of "ramp", "stripes" and "checks".
        grain: strength in grey levels of noise that is the same in all frames.
        texture: "ramp", "stripes", "checks", "clouds", "blobs" or "paper".
        texture_seed: selects one of the patterns of a texture.
    """

    colour: Rgb
    colour2: Rgb | None = None
    angle: float = 0.0
    grain: float = 0.0
    texture: str = "ramp"
    texture_seed: int = 0


@dataclass(frozen=True)
class Plate:
    """A sign behind text, or only a frame: a box in units.

    Attributes:
        x: centre across.
        y: centre down.
        w: width.
        h: height.
        rgb: fill; None for a frame.
        border: colour of the border; None for no border.
        border_width: width of the border.
    """

    x: float
    y: float
    w: float
    h: float
    rgb: Rgb | None
    border: Rgb | None = None
    border_width: float = 0.0


@dataclass(frozen=True)
class Curve:
    """A line through points, in units.

    Attributes:
        points: (x, y) of every point.
        rgb: colour.
        width: width of the line.
        dot: radius of the dot at every point; 0 for no dots.
    """

    points: tuple[tuple[float, float], ...]
    rgb: Rgb
    width: float
    dot: float = 0.0


@dataclass(frozen=True)
class Figure:
    """A coloured shape.

    Attributes:
        shape: one of SHAPES.
        colour: name of its colour.
        rgb: the exact colour, a shade of `colour`.
        w: width of the ink in units.
        h: height of the ink in units.
        angle: rotation in degrees.
        track: centre in every frame.
    """

    shape: str
    colour: str
    rgb: Rgb
    w: float
    h: float
    angle: float
    track: Track


@dataclass(frozen=True)
class Text:
    """A line of characters.

    Attributes:
        text: the characters.
        font: family of `fonts`.
        rgb: colour.
        w: width of the ink in units.
        h: height of a capital in units.
        spacing: extra space between characters, in parts of the font size.
        angle: rotation in degrees.
        track: centre in every frame.
    """

    text: str
    font: str
    rgb: Rgb
    w: float
    h: float
    spacing: float
    angle: float
    track: Track


@dataclass(frozen=True)
class Veil:
    """An occluder: it hides a box of the picture, text included, in some frames.

    Attributes:
        kind: "board" is a plain colour, "speckle" is noise between two colours, "smear" averages what is under it.
        x: centre across in units, like `y`, `w` and `h`.
        y: centre down.
        w: width.
        h: height.
        rgb: colour of a board, first colour of speckle.
        rgb2: second colour of speckle.
        grain: size of a grain of speckle or of the area that a smear averages, in units.
        seed: seed of speckle.
        shown: for every frame, whether the box is hidden.
    """

    kind: Literal["board", "speckle", "smear"]
    x: float
    y: float
    w: float
    h: float
    rgb: Rgb
    rgb2: Rgb
    grain: float
    seed: int
    shown: tuple[bool, ...]


@dataclass(frozen=True)
class CameraEffects:
    """What a camera and a file format do to rendered frames.

    Attributes:
        contrast: factor about mid grey.
        brightness: grey levels added.
        blur: weight of either neighbour in a three-pixel blur, 0 to 0.25.
        noise: standard deviation in grey levels.
        noise_seed: seed of noise and grain.
        jpeg: quality of the JPEG file that the frames pass through; 0 for none.
    """

    contrast: float
    brightness: float
    blur: float
    noise: float
    noise_seed: int
    jpeg: int = 0


@dataclass(frozen=True)
class Scene:
    """All that is rendered, from back to front, and the facts that the answer is computed from.

    Attributes:
        backdrop: the background.
        look: effects of camera and file format.
        plates: signs and frames.
        figures: shapes, the last one on top.
        texts: lines of text.
        frames: number of frames.
        timestamps: seconds of the frames; empty for a picture.
        asked: facts behind the answer, as JSON values.
        veils: what hides parts of some frames.
        curves: lines of charts.
        extent: width and height in units, multiples of 64. A scene of (128, 64) is twice as wide as high.
    """

    backdrop: Backdrop
    look: CameraEffects
    plates: tuple[Plate, ...] = ()
    figures: tuple[Figure, ...] = ()
    texts: tuple[Text, ...] = ()
    frames: int = 1
    timestamps: tuple[float, ...] = ()
    asked: dict[str, Any] = field(default_factory=dict)
    veils: tuple[Veil, ...] = ()
    curves: tuple[Curve, ...] = ()
    extent: tuple[float, float] = (UNITS, UNITS)

    def description(self) -> dict[str, Any]:
        """Return the scene as JSON values."""
        return {
            "frames": self.frames,
            "extent": list(self.extent),
            "timestamps": list(self.timestamps),
            "backdrop": _to_values(self.backdrop),
            "look": _to_values(self.look),
            "plates": [_to_values(p) for p in self.plates],
            "figures": [_to_values(f) for f in self.figures],
            "texts": [_to_values(t) for t in self.texts],
            **({"curves": [_to_values(c) for c in self.curves]} if self.curves else {}),
            "veils": [_to_values(v) for v in self.veils],
            "asked": dict(self.asked),
        }


@dataclass(frozen=True)
class SceneTurn:
    """A later turn of a conversation, before rendering.

    Attributes:
        media: scenes or pages that the turn adds.
        question: its question.
        answer: its answer.
    """

    media: tuple[Scene | Canvas | Reel, ...]
    question: str
    answer: str


@dataclass(frozen=True)
class SceneQA:
    """A scene with its questions and answers, before rendering.

    Attributes:
        scene: the first picture or clip. Page tasks have a canvas or a reel here, or None if there is no medium.
        question: the first question.
        answer: the answer to the first question.
        more: further questions about the same media, with their answers.
        further: more pictures or clips, which come before the first question.
        level: difficulty, 1 to LEVELS.
        turns: later turns, which may add media.
    """

    scene: Scene | Canvas | Reel | None
    question: str
    answer: str
    more: tuple[tuple[str, str], ...] = ()
    further: tuple[Scene | Canvas | Reel, ...] = ()
    level: int = 1
    turns: tuple[SceneTurn, ...] = ()


@dataclass(frozen=True)
class SceneOptions:
    """What a caller can request of a task.

    Attributes:
        split: what the sample may show.
        frames: length of a clip; sampled if None.
        level: difficulty from 1 to LEVELS; sampled if None.
        tiles: size of pictures in tiles of 64 x 64 units: 1, 2 (wide or tall) or 4.
    """

    split: Split
    frames: int | None = None
    level: int | None = None
    tiles: int = 1


def _to_values(item: object) -> dict[str, Any]:
    """Return the fields of a dataclass as JSON values."""
    # vars() instead of dataclasses.asdict, whose deep copies cost more than rendering.
    return {k: _to_lists(v) for k, v in vars(item).items()}


def _to_lists(value: Any) -> Any:
    return [_to_lists(v) for v in value] if isinstance(value, tuple) else value


@dataclass(frozen=True, eq=False)
class Medium:
    """One picture or clip of a sample.

    Attributes:
        kind: "image" or "video".
        frames: uint8 `(F, H, W, 3)`, F = 1 for images.
        timestamps: seconds, one per frame; empty for images.
        patch_labels: int64 `(F, H / 8, W / 8)`, a class of `vocabulary` per 8 x 8 patch; None for pages, which are
            resized.
    """

    kind: Kind
    frames: NDArray[np.uint8]
    timestamps: tuple[float, ...]
    patch_labels: NDArray[np.int64] | None = None


@dataclass(frozen=True, eq=False)
class Turn:
    """A later turn of a conversation.

    Attributes:
        media: pictures and clips that the turn adds.
        question: its question.
        answer: its answer.
    """

    media: tuple[Medium, ...]
    question: str
    answer: str


@dataclass(frozen=True, eq=False)
class Sample:
    """Pictures and clips, usually one, with questions about them and the answers.

    Attributes:
        task: name of the task.
        media: pictures and clips before the first question.
        question: the first question.
        answer: the answer to the first question.
        level: difficulty, 1 to LEVELS.
        description: everything that is rendered, as JSON values. Its hash identifies the sample.
        more: further questions about the same media, with answers. Training puts them in later turns, because encoding
            the frames is the expensive part.
        turns: later turns, which may add media; they come after `more`.
    """

    task: str
    media: tuple[Medium, ...]
    question: str
    answer: str
    level: int
    description: dict[str, Any]
    more: tuple[tuple[str, str], ...] = ()
    turns: tuple[Turn, ...] = ()

    @property
    def all_media(self) -> tuple[Medium, ...]:
        """The media of all turns, in order."""
        return (*self.media, *(medium for turn in self.turns for medium in turn.media))

    @property
    def conversation(self) -> tuple[Turn, ...]:
        """All turns in order: the first question, the further ones about the same media, the later turns."""
        first = Turn(self.media, self.question, self.answer)
        return (first, *(Turn((), question, answer) for question, answer in self.more), *self.turns)

    @property
    def kind(self) -> Kind:
        """Kind of the sample: "video" if any turn has a clip, else "image"."""
        return "video" if any(medium.kind == "video" for medium in self.all_media) else "image"

    @property
    def last_answer(self) -> str:
        """The answer of the last turn, which evaluation compares; without later turns, the answer."""
        return self.turns[-1].answer if self.turns else self.answer

    @property
    def frames(self) -> NDArray[np.uint8]:
        """Frames of the first medium, uint8 `(F, H, W, 3)`."""
        return self.media[0].frames

    @property
    def timestamps(self) -> tuple[float, ...]:
        """Seconds of the frames of the first medium; empty for a picture."""
        return self.media[0].timestamps

    @property
    def patch_labels(self) -> NDArray[np.int64] | None:
        """Patch classes of the first medium, int64 `(F, H / 8, W / 8)`."""
        return self.media[0].patch_labels

    @property
    def description_hash(self) -> str:
        """SHA-256 of the description as canonical JSON, in hexadecimal."""
        text = json.dumps(self.description, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
        return hashlib.sha256(text.encode("ascii")).hexdigest()
