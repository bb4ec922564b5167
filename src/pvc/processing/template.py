"""Render chat templates, and encode their output with control tokens. Called by PVCProcessor."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from transformers.utils import get_json_schema
from transformers.utils.chat_template_utils import _get_template_variables, render_jinja_template

from pvc.errors import UsageError
from pvc.processing.chat_tokens import MarkedChat, Span, overlaps
from pvc.processing.plain import PlainEncoder
from pvc.processing.variables import ControlMarker, to_plain_data

_GENERATION = re.compile(r"\{%-?\s*generation\s*-?%\}")
# Variables that every template gets and no caller may replace.
_RESERVED = frozenset({"messages", "add_generation_prompt"})
# Keys of messages without user text: a checked role, and markers.
_SAFE_KEYS = frozenset({"role", "content"})


def template_variables(template: str) -> frozenset[str]:
    """Return the names that a chat template reads and that a caller may set."""
    return frozenset(_get_template_variables(template)) - _RESERVED


def find_template(templates: str | dict[str, str] | None, chat_template: str | None) -> str:
    """Find the source of a chat template.

    Args:
        templates: the template of a processor, or its templates by name.
        chat_template: name or source of the template to use; None for the processor's.

    Raises:
        UsageError: there is no template, or several and none is named.
    """
    if isinstance(templates, dict):
        if chat_template is None and "default" not in templates:
            raise UsageError(f"name the chat_template to use; there are {', '.join(sorted(templates))}")
        return str(templates.get(chat_template or "default", chat_template))
    if chat_template is not None:
        return chat_template
    if templates is None:
        raise UsageError("the processor has no chat template; pass chat_template")
    return templates


@dataclass(frozen=True)
class Rendering:
    """How conversations are rendered.

    Attributes:
        template: source of the chat template.
        variables: values of the template's variables, including `tools` and `documents`.
        add_generation_prompt: end with the head of an assistant's turn.
        continue_final_message: leave the last message open; a string names the key that is continued.
    """

    template: str
    variables: Mapping[str, Any]
    add_generation_prompt: bool = False
    continue_final_message: bool | str = False

    def for_transformers(self) -> dict[str, Any]:
        """Return the keyword arguments for the base class's `apply_chat_template`."""
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
            UsageError: the last message has nothing to continue, or tools are not schemas or functions.
        """
        variables = to_plain_data(dict(self.variables))
        if variables.get("tools"):
            variables["tools"] = [get_json_schema(tool) if callable(tool) else tool for tool in variables["tools"]]
        if not all(isinstance(document, dict) for document in variables.get("documents") or ()):
            raise UsageError("documents must be a list of dictionaries")
        mask = mask and _GENERATION.search(self.template) is not None
        values = [variables, *({k: v for k, v in message.items() if k not in _SAFE_KEYS} for message in chat.messages)]

        def mark_values(template: str, is_strict: bool) -> tuple[list[dict[str, Any]], set[str]]:
            marker = ControlMarker(chat.mark_character, plain.added_tokens, template, is_strict)
            return [{key: marker(item) for key, item in part.items()} for part in values], marker.exempt

        strict, exempt = mark_values(self.template, True)
        rendered, generated = self._render(chat, strict, special_tokens, mask)
        lenient, _ = mark_values(self.template, False)
        if strict != lenient:
            other, spans = self._render(chat, lenient, special_tokens, mask)
            if chat.restore_characters(other) != chat.restore_characters(rendered):
                # The template compares a value with a literal, so it needs the values unchanged.
                _refuse_more_controls(chat, other, rendered, plain.added_tokens)
                rendered, generated = other, spans
        unsafe_tokens = [
            token for token in plain.added_tokens if any(key in token for key in exempt) and token in rendered
        ]
        if unsafe_tokens:
            safest, _ = self._render(chat, mark_values("", True)[0], special_tokens, mask)
            _refuse_more_controls(chat, rendered, safest, unsafe_tokens)
        return rendered, generated if mask else None

    def _render(
        self, chat: MarkedChat, values: list[dict[str, Any]], special_tokens: Mapping[str, Any], mask: bool
    ) -> tuple[str, list[Span]]:
        """Render once; `values` are the variables, and the further keys of every message."""
        variables, *message_keys = values
        messages = [
            {key: value for key, value in message.items() if key in _SAFE_KEYS} | keys
            for message, keys in zip(chat.messages, message_keys, strict=True)
        ]
        try:
            rendered, generated = render_jinja_template(
                [messages],
                chat_template=self.template,
                return_assistant_tokens_mask=mask,
                add_generation_prompt=self.add_generation_prompt,
                continue_final_message=self.continue_final_message,
                **{**special_tokens, **variables},
            )
        except ValueError as error:
            raise UsageError(f"the chat template cannot be rendered: {str(error).splitlines()[0][:300]}") from error
        return rendered[0], [(first, last) for first, last in generated[0]] if mask else []


def _refuse_more_controls(chat: MarkedChat, rendered: str, safe: str, tokens: Sequence[str]) -> None:
    """Reject a rendered text that has more control tokens than `safe`, whose values cannot be part of a control token.

    Raises:
        UsageError: the error names the control token.
    """
    pieces, safe_pieces = (chat.pattern.split(text)[::2] for text in (rendered, safe))
    for token in tokens:
        if sum(piece.count(token) for piece in pieces) > sum(piece.count(token) for piece in safe_pieces):
            raise UsageError(
                f"the chat template would make the control token {token!r} of a value or key of a message, tool, "
                "document or template variable; rename it"
            )


class TemplateEncoder:
    """Encodes the output of a template. A placeholder in it stands for the next image or video.

    Args:
        processor: has the tokenizer, the placeholders and their replacements.
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
        """Encode a piece of the output of a template.

        Args:
            text: the piece.
            generated: character ranges of `text` that an assistant generated.

        Returns:
            Ids, and for each of them 1 if it has one of the `generated` characters, else 0.
        """
        ends, growths, growth, pieces, last = [0], [0], 0, [], 0
        for match in self.pattern.finditer(text):
            if match[0] == self.processor.image_token:
                expanded = self.processor.replace_image_token(self.media, next(self.images))
            else:
                expanded = self.processor.replace_video_token(self.media, next(self.videos))
            pieces += [text[last : match.start()], expanded]
            last = match.end()
            growth += len(expanded) - len(match[0])
            ends.append(last)
            growths.append(growth)
        full_text = "".join([*pieces, text[last:]])
        if not generated:
            ids = self.processor.tokenizer(full_text, add_special_tokens=False)["input_ids"]
            return ids, [0] * len(ids)

        def shift(index: int) -> int:
            return index + growths[max(0, bisect_right(ends, index) - 1)]

        spans = [(shift(first), shift(end)) for first, end in generated if end > first]
        encoding = self.processor.tokenizer(full_text, add_special_tokens=False, return_offsets_mapping=True)
        return encoding["input_ids"], [int(overlaps(first, end, spans)) for first, end in encoding["offset_mapping"]]


__all__ = ["Rendering", "TemplateEncoder", "find_template", "template_variables"]
