"""What a scene is (frozen values, in units of 1/64 of the picture's side) and what a finished sample is.

A scene says everything that `draw` needs, so its description is the same at every picture size, and the hash of the
description identifies a sample. It leaves out drawing and chance. Used by the task modules, `draw` and `make`.
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
Track = tuple[tuple[float, float] | None, ...]  # centre per frame in units; None where the item is not shown


@dataclass(frozen=True)
class Backdrop:
    """One colour, or a mix with `colour2` by a texture; grain is noise of its own.

    texture: "ramp" and "stripes" and "checks" have an `angle` (degrees); "clouds", "blobs" and "paper" do not.
    """

    colour: Rgb
    colour2: Rgb | None = None
    angle: float = 0.0
    grain: float = 0.0
    texture: str = "ramp"
    texture_seed: int = 0


@dataclass(frozen=True)
class Plate:
    """A sign behind text, or (with `rgb` None) only a frame: a box by its centre and extents."""

    x: float
    y: float
    w: float
    h: float
    rgb: Rgb | None
    border: Rgb | None = None
    border_width: float = 0.0


@dataclass(frozen=True)
class Curve:
    """A line through points, each marked by a dot when `dot` (its radius) is not 0."""

    points: tuple[tuple[float, float], ...]
    rgb: Rgb
    width: float
    dot: float = 0.0


@dataclass(frozen=True)
class Figure:
    """A coloured shape whose ink fills w x h."""

    shape: str
    colour: str
    rgb: Rgb
    w: float
    h: float
    angle: float
    track: Track


@dataclass(frozen=True)
class Text:
    """Characters whose ink fills w x h, h being the height of a capital."""

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
    """What hides a box of the picture, text included, in the frames where `shown` is true.

    kind: "board" is a plain colour, "speckle" is noise between the two colours, "smear" averages over `grain` units.
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
    """What a camera and a file format do: contrast about mid grey, brightness, blur (0..0.25), noise (grey levels).

    jpeg: quality of a JPEG file that the frames went through, 0 for none.
    """

    contrast: float
    brightness: float
    blur: float
    noise: float
    noise_seed: int
    jpeg: int = 0


@dataclass(frozen=True)
class Scene:
    """Everything to draw, from back to front; `asked` holds the facts that the answer is taken from.

    extent: width and height in units, multiples of 64: at `size` pixels, a scene of (128, 64) is twice as wide.
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
        """The scene as values that JSON holds."""
        return {
            "frames": self.frames,
            "extent": list(self.extent),
            "timestamps": list(self.timestamps),
            "backdrop": _values(self.backdrop),
            "look": _values(self.look),
            "plates": [_values(p) for p in self.plates],
            "figures": [_values(f) for f in self.figures],
            "texts": [_values(t) for t in self.texts],
            **({"curves": [_values(c) for c in self.curves]} if self.curves else {}),
            "veils": [_values(v) for v in self.veils],
            "asked": dict(self.asked),
        }


@dataclass(frozen=True)
class SceneTurn:
    """A later turn of a conversation: media that are added, a question and its answer."""

    media: tuple[Scene | Canvas | Reel, ...]
    question: str
    answer: str


@dataclass(frozen=True)
class SceneQA:
    """A scene with its question and answer, and further ones about it, before it is drawn.

    Page tasks have a canvas or a reel in place of a scene, or None where nothing is shown.
    """

    scene: Scene | Canvas | Reel | None
    question: str
    answer: str
    more: tuple[tuple[str, str], ...] = ()
    further: tuple[Scene | Canvas | Reel, ...] = ()  # more pictures or clips, which the question comes after
    level: int = 1
    turns: tuple[SceneTurn, ...] = ()


@dataclass(frozen=True)
class SceneOptions:
    """What a caller may ask of a task: the split, the frames of a clip, the difficulty 1 to LEVELS (None: drawn).

    tiles: parts of 64 x 64 units that pictures are wide and high together: 1, 2 (wide or tall) or 4.
    """

    split: Split
    frames: int | None = None
    level: int | None = None
    tiles: int = 1


def _values(item: object) -> dict[str, Any]:
    # vars() and not dataclasses.asdict, whose deep copies cost more than the drawing.
    return {k: _listed(v) for k, v in vars(item).items()}


def _listed(value: Any) -> Any:
    return [_listed(v) for v in value] if isinstance(value, tuple) else value


@dataclass(frozen=True, eq=False)
class Medium:
    """One picture or clip of a sample.

    frames: uint8 (F, H, W, 3), F = 1 for images. timestamps: seconds, one per frame, empty for images.
    patch_labels: int64 (F, gh, gw), a class of `vocabulary` per 8x8 patch; None for pages, which are resized.
    """

    kind: Kind
    frames: NDArray[np.uint8]
    timestamps: tuple[float, ...]
    patch_labels: NDArray[np.int64] | None = None


@dataclass(frozen=True, eq=False)
class Turn:
    """A later turn of a conversation: media that are added, a question and its answer."""

    media: tuple[Medium, ...]
    question: str
    answer: str


@dataclass(frozen=True, eq=False)
class Sample:
    """Pictures and clips, most often one, with a question about them and its answer.

    level: difficulty, 1 to LEVELS. description: what was drawn, as JSON values; `description_hash` identifies the
    sample. more: further questions about the same media with their answers: training asks them in later turns, since
    encoding the frames is what costs. turns: later turns, which may add media; they come after `more`.
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
        """ "video" if there is a clip among the media of any turn, else "image"."""
        return "video" if any(medium.kind == "video" for medium in self.all_media) else "image"

    @property
    def last_answer(self) -> str:
        """The answer of the last turn, which evaluation asks for; without later turns the answer."""
        return self.turns[-1].answer if self.turns else self.answer

    @property
    def frames(self) -> NDArray[np.uint8]:
        """Frames of the first medium, uint8 (F, H, W, 3)."""
        return self.media[0].frames

    @property
    def timestamps(self) -> tuple[float, ...]:
        """Seconds of the frames of the first medium; empty for a picture."""
        return self.media[0].timestamps

    @property
    def patch_labels(self) -> NDArray[np.int64] | None:
        """Patch classes of the first medium, int64 (F, gh, gw)."""
        return self.media[0].patch_labels

    @property
    def description_hash(self) -> str:
        """SHA-256 of the description as canonical JSON (hex)."""
        text = json.dumps(self.description, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
        return hashlib.sha256(text.encode("ascii")).hexdigest()
