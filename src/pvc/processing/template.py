"""Renders chat templates, and encodes what they wrote with its control tokens. Called by PVCProcessor."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from transformers.utils import get_json_schema
from transformers.utils.chat_template_utils import _get_template_variables, render_jinja_template

from pvc.errors import UsageError
from pvc.processing.chat import MarkedChat, Span, overlaps
from pvc.processing.plain import PlainEncoder
from pvc.processing.variables import as_plain_data, mark_controls

_GENERATION = re.compile(r"\{%-?\s*generation\s*-?%\}")
# What a template always gets, and what no caller may replace.
_FIXED = frozenset({"messages", "add_generation_prompt"})


def template_variables(template: str) -> frozenset[str]:
    """Names that a chat template reads and that a caller may set."""
    return frozenset(_get_template_variables(template)) - _FIXED


@dataclass(frozen=True)
class Rendering:
    """How conversations are rendered.

    Attributes:
        template: source of the chat template.
        variables: values of the template's variables, `tools` and `documents` included.
        add_generation_prompt: end with the head of an assistant's turn.
        continue_final_message: leave the last message open; a string names the key that is continued.
    """

    template: str
    variables: Mapping[str, Any]
    add_generation_prompt: bool = False
    continue_final_message: bool | str = False

    def for_transformers(self) -> dict[str, Any]:
        """Keyword arguments for the base class's `apply_chat_template`."""
        return {
            "chat_template": self.template,
            "add_generation_prompt": self.add_generation_prompt,
            "continue_final_message": self.continue_final_message,
            **self.variables,
        }

    def render(
        self, chat: MarkedChat, plain: PlainEncoder, special_tokens: Mapping[str, Any], mask: bool
    ) -> tuple[str, list[Span] | None]:
        """Render marked messages.

        Args:
            chat: messages whose texts are markers.
            plain: knows the control tokens.
            special_tokens: by name, e.g. `bos_token`; variables of every template.
            mask: whether the characters that an assistant generated are needed.

        Returns:
            The text, and the characters in it that the template declares as generated (`{% generation %}`); None if it
            declares none or `mask` is false.

        Raises:
            UsageError: the last message has nothing to continue, or tools that are no schemas or functions.
        """
        variables = as_plain_data(dict(self.variables))
        if variables.get("tools"):
            variables["tools"] = [get_json_schema(tool) if callable(tool) else tool for tool in variables["tools"]]
        mask = mask and _GENERATION.search(self.template) is not None
        try:
            rendered, generated = render_jinja_template(
                [chat.messages],
                chat_template=self.template,
                return_assistant_tokens_mask=mask,
                add_generation_prompt=self.add_generation_prompt,
                continue_final_message=self.continue_final_message,
                **{**special_tokens, **mark_controls(variables, chat.mark_character, plain, self.template)},
            )
        except ValueError as error:
            if isinstance(error, UnicodeError):
                raise
            raise UsageError(f"the chat template cannot be rendered: {str(error).splitlines()[0][:300]}") from error
        return rendered[0], [(first, last) for first, last in generated[0]] if mask else None


class TemplateEncoder:
    """Encodes what a template wrote; a placeholder in it stands for the next image or video of its kind.

    Args:
        processor: has the tokenizer, the placeholders and what they stand for.
        media: grids, steps and timestamps of all images and videos.
    """

    def __init__(self, processor: Any, media: Mapping[str, Any]) -> None:
        self.processor = processor
        self.media = media
        self.images: Iterator[int] = iter(range(len(media.get("image_grid_thw", ()))))
        self.videos: Iterator[int] = iter(range(len(media.get("timestamps", ()))))
        tokens = (processor.image_token, processor.video_token)
        self.pattern = re.compile("|".join(map(re.escape, tokens)))

    def __call__(self, text: str, generated: Sequence[Span]) -> tuple[list[int], list[int]]:
        """Ids of `text`, and 1 for each that has one of the `generated` characters, else 0."""
        ends, gains, gained, pieces, last = [0], [0], 0, [], 0
        for match in self.pattern.finditer(text):
            if match[0] == self.processor.image_token:
                expanded = self.processor.replace_image_token(self.media, next(self.images))
            else:
                expanded = self.processor.replace_video_token(self.media, next(self.videos))
            pieces += [text[last : match.start()], expanded]
            last = match.end()
            gained += len(expanded) - len(match[0])
            ends.append(last)
            gains.append(gained)
        whole = "".join([*pieces, text[last:]])
        if not generated:
            ids = self.processor.tokenizer(whole, add_special_tokens=False)["input_ids"]
            return ids, [0] * len(ids)

        def shifted(place: int) -> int:
            return place + gains[max(0, bisect_right(ends, place) - 1)]

        spans = [(shifted(first), shifted(end)) for first, end in generated if end > first]
        encoding = self.processor.tokenizer(whole, add_special_tokens=False, return_offsets_mapping=True)
        return encoding["input_ids"], [int(overlaps(first, end, spans)) for first, end in encoding["offset_mapping"]]


__all__ = ["Rendering", "TemplateEncoder", "template_variables"]
