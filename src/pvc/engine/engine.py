"""Engine: a loaded model that answers. The facade of this folder: conversations, live sessions and budgets.

Called by `pvc.load`, the command line, the server and training's measurements.
"""

from __future__ import annotations

from typing import Any

from pvc.engine.budget import Plan, plan_budget
from pvc.engine.chat import Chat
from pvc.engine.encoder import Encoder, as_list
from pvc.engine.live import FrameRetention, LiveSession
from pvc.engine.options import MediaOptions


class Engine(Encoder):
    """A model ready to answer; see `Encoder` for its attributes."""

    def chat(self, system: str | None = None) -> Chat:
        """Start a conversation, with a system message if one is given."""
        return Chat(self, system)

    def live(
        self,
        *,
        window: int | None = None,
        keep: FrameRetention | None = None,
        bounded: bool = True,
        total_steps: int | None = None,
        system: str | None = None,
    ) -> LiveSession:
        """Start a live session: push frames as they come, and ask about them at any time.

        Args:
            window: steps that the tower remembers; by default the checkpoint's, else 64.
            keep: frames that stay in the prompt; by default as many of the latest as the checkpoint names.
            bounded: False keeps all frames, in the prompt and (without a window) in the tower.
            total_steps: frames of the whole video; required where timesteps are relative, and only there.
            system: a system message.

        Raises:
            UsageError: as `LiveSession` does.
        """
        return LiveSession(self, window=window, keep=keep, bounded=bounded, total_steps=total_steps, system=system)

    def plan(
        self,
        sources: Any,
        *,
        budget: int | None = None,
        memory: int | None = None,
        options: MediaOptions | None = None,
    ) -> Plan:
        """What to take of media, from their headers alone, so that they fit.

        Args:
            sources: one medium or several, as `open` takes them.
            budget: most visual tokens of all of them together; None: no limit.
            memory: most bytes at the peak of `encode`, in the memory of the model's device; the weights, the opened
                media and the language model are not counted. None: no limit.
            options: what would be taken without a limit; nothing gets more than this.

        Returns:
            A `Plan`. Open and encode with its `options`, or give them to a conversation as `media_options`.

        Raises:
            UsageError: not even one frame of every video and one tile and step of every picture fits.
            MediaError, ForbiddenError: a file that would be refused.
        """
        return plan_budget(self, as_list(sources), options or MediaOptions(), budget, memory)


__all__ = ["Engine"]
