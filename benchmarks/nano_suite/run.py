"""Running the suite through PVC's public API: `pvc.load()`, `engine.chat()`, pictures and MP4 files."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, TypeVar

from benchmarks.nano_suite.items import FPS, Item, Medium, Question
from benchmarks.nano_suite.matching import exact, lenient
from rich.console import Console
from rich.progress import track

from pvc.errors import PVCError
from pvc.media.write import write_video

if TYPE_CHECKING:
    from pvc.engine import Chat, Engine

T = TypeVar("T")


@dataclass(frozen=True)
class Reply:
    """A question with its answer, and whether it counts.

    Attributes:
        question: text of the question.
        expected: the right answer.
        rule: the rule that compared the answer.
        media: kinds of the media sent with the question.
        answer: the model's answer.
        exact: whether the answer equals the expected one.
        lenient: whether the answer counts by the rule.
        error: the error that PVC reported in place of an answer, or None.
    """

    question: str
    expected: str
    rule: str
    media: tuple[str, ...]
    answer: str
    exact: bool
    lenient: bool
    error: str | None = None


@dataclass(frozen=True)
class Result:
    """The replies of one item.

    Attributes:
        kind: of the item.
        number: of the item within its kind.
        replies: one for each question.
    """

    kind: str
    number: int
    replies: tuple[Reply, ...]

    def to_json(self) -> dict[str, Any]:
        """Build a dictionary for JSON, without values that are None."""
        replies = [{key: value for key, value in asdict(reply).items() if value is not None} for reply in self.replies]
        return {"kind": self.kind, "number": self.number, "replies": replies}


def with_progress(items: Sequence[T], what: str) -> Iterable[T]:
    """Iterate with a progress bar on stderr, if stderr is a terminal.

    Args:
        items: the items.
        what: label of the bar.
    """
    return track(items, what, console=Console(stderr=True), disable=not sys.stderr.isatty(), transient=True)


def as_input(medium: Medium, folder: Path, name: str) -> Any:
    """Build the input that a user would pass: a PIL picture, or the path of an MP4 file.

    Args:
        medium: the medium.
        folder: folder for the file.
        name: name of the file without its suffix.
    """
    frames = [canvas.finish() for canvas in medium.render()]
    if medium.kind == "image":
        return frames[0]
    path = folder / f"{name}.mp4"
    write_video(path, frames, FPS)
    return path


def ask(chat: Chat, question: Question, media: Sequence[Any], kinds: Sequence[str]) -> Reply:
    """Ask one question of a conversation, and compare the answer.

    Args:
        chat: the conversation.
        question: the question.
        media: pictures and paths of the media sent with it.
        kinds: "image" or "video" for each medium.
    """
    answer, error = "", None
    try:
        answer = chat.ask(question.text, media=media).text
    except PVCError as failure:
        error = f"{type(failure).__name__}: {failure}"
    return Reply(
        question.text,
        question.expected,
        question.rule,
        tuple(kinds),
        answer,
        exact(question.expected, answer),
        lenient(question.rule, question.expected, answer, question.others),
        error,
    )


def run_item(engine: Engine, item: Item) -> Result:
    """Ask the questions of an item in a new conversation.

    Args:
        engine: the model.
        item: the item.
    """
    replies = []
    with TemporaryDirectory() as folder:
        chat = engine.chat()
        for turn_number, turn in enumerate(item.turns):
            media = [as_input(medium, Path(folder), f"{turn_number}-{at}") for at, medium in enumerate(turn.media)]
            replies.append(ask(chat, turn.question, media, [medium.kind for medium in turn.media]))
    return Result(item.kind, item.number, tuple(replies))


def run_suite(engine: Engine, items: Sequence[Item]) -> list[Result]:
    """Ask the questions of all items.

    Args:
        engine: the model.
        items: the items.
    """
    return [run_item(engine, item) for item in with_progress(items, "questions")]
