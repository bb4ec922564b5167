"""The answer loss: the student's predictions and hidden states against its teacher's, on the teacher's own answers.

Called by Trainer through `AnswerDistiller.forward`; `setup.py` builds it, `answer_data.py` makes its batches.

B rows, Q and Q' tokens of a row of the student and of the teacher, V vocabulary, P positions that predict a token of
an answer, R positions of text after the media, D hidden width, k stored tokens a position.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import nn

from pvc.train.distill.teacher import PIXELS, FrozenTeacher, run_teacher, teacher_text
from pvc.train.distill.teacher_cache import kl_divergence, top_divergence

MARKS = ("answer", "after")
EMBEDDING, OUTPUT = "student.model.language_model.embed_tokens.weight", "student.lm_head.weight"


class AnswerDistiller(nn.Module):
    """Student, teacher and the loss between what their language models say.

    The loss of a sample is the mean KL divergence (temperature 1) of the student's from the teacher's predictions at
    the answer's positions, and the mean-squared difference of the last hidden states at all text after the media, over
    the variance of the teacher's.

    Args:
        student, teacher: whole models. The teacher is not among the parameters. It is None if all batches have its
            stored outputs.
    """

    # The loss is a mean of its own batch; otherwise Trainer would scale it by the number of processes.
    accepts_loss_kwargs = False
    variance: torch.Tensor

    def __init__(self, student: Any, teacher: Any | None) -> None:
        super().__init__()
        self.student = student
        self._no_split_modules = student._no_split_modules
        self._teacher = None if teacher is None else FrozenTeacher(teacher)
        self.register_buffer("variance", torch.tensor(1.0))
        if student.config.tie_word_embeddings:
            # Checkpoints of plain modules must not hold one tensor under two names.
            self.register_state_dict_post_hook(_leave_out_tied)
            self.register_load_state_dict_pre_hook(_put_back_tied)

    def activation_checkpointing_enable(self, *args: Any, **kwargs: Any) -> None:
        """Compute the student's activations again on the way back, as Trainer asks for it."""
        enable = getattr(self.student, "activation_checkpointing_enable", None)
        (enable or self.student.gradient_checkpointing_enable)(*args, **kwargs)

    gradient_checkpointing_enable = activation_checkpointing_enable

    def forward(
        self,
        input_ids: torch.Tensor,
        answer: torch.Tensor,
        after: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        pixel_values: torch.Tensor | None = None,
        image_grid_thw: torch.Tensor | None = None,
        image_steps: torch.Tensor | None = None,
        pixel_values_videos: torch.Tensor | None = None,
        video_grid_thw: torch.Tensor | None = None,
        step_offset: torch.Tensor | None = None,
        **teacher: torch.Tensor,
    ) -> dict[str, torch.Tensor]:
        """Return the loss of a batch: the mean over its samples.

        Args:
            input_ids, attention_mask, position_ids: `(B, Q)`, the student's text.
            answer, after: `(B, Q)` int64: the number of its sample, from 1, where a position predicts a token of an
                answer, or is text after the media; 0 elsewhere.
            pixel_values, ...: media, as the model takes them; the teacher's pictures are encoded in one step.
            teacher: `teacher_input_ids`, `teacher_answer` and the like, `(B, Q')`, in the same rows (it has more
                visual tokens); or its stored outputs `teacher_indices` and `teacher_log_probs` `(P, k)` and
                `teacher_hidden` `(R, D)`.
        """
        media = {"pixel_values": pixel_values, "image_grid_thw": image_grid_thw}
        media |= {"pixel_values_videos": pixel_values_videos, "video_grid_thw": video_grid_thw}
        expected, wanted = self._teacher_hidden(media, teacher, input_ids.device)
        hidden = self.student.model(
            input_ids=input_ids,
            attention_mask=attention_mask,
            position_ids=position_ids,
            image_steps=image_steps,
            step_offset=step_offset,
            use_cache=False,
            **media,
        ).last_hidden_state
        found = self.student.lm_head(hidden[answer > 0]).float().log_softmax(-1)
        if wanted is not None:
            divergence = kl_divergence(found, wanted)
        else:
            divergence = top_divergence(found, teacher["teacher_indices"], teacher["teacher_log_probs"])
        squares = (hidden[after > 0].float() - expected).square().mean(-1) / self.variance
        return {"loss": mean_per_sample(divergence, answer) + mean_per_sample(squares, after)}

    def _teacher_hidden(
        self, media: Mapping[str, Any], teacher: Mapping[str, torch.Tensor], device: torch.device
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Return hidden states `(R, D)`, and log-probabilities `(P, V)` unless they are stored."""
        if "teacher_hidden" in teacher:
            return teacher["teacher_hidden"].float(), None
        assert self._teacher is not None
        return run_teacher(self._teacher.on(device), media, teacher_text(teacher))

    @torch.no_grad()
    def measure_variance(self, batches: Iterable[dict[str, torch.Tensor]], device: torch.device) -> None:
        """Set `variance` from the teacher's hidden states after the media: the mean over channels."""
        states = []
        for batch in batches:
            inputs = {name: value.to(device) for name, value in batch.items()}
            media = {name: inputs.get(name) for name in PIXELS}
            states.append(self._teacher_hidden(media, inputs, device)[0])
        self.variance.fill_(torch.cat(states).var(0).mean().clamp(min=1e-12).item())


def _leave_out_tied(module: nn.Module, state: dict[str, Any], prefix: str, metadata: Any) -> None:
    state.pop(f"{prefix}{OUTPUT}", None)


def _put_back_tied(module: nn.Module, state: dict[str, Any], prefix: str, *args: Any) -> None:
    if f"{prefix}{EMBEDDING}" in state:
        state.setdefault(f"{prefix}{OUTPUT}", state[f"{prefix}{EMBEDDING}"])


def mean_per_sample(values: torch.Tensor, marks: torch.Tensor) -> torch.Tensor:
    """Mean over samples of the means of `(P,)` values, selected where `(B, Q)` marks have a sample's number."""
    numbers = marks[marks > 0] - 1
    count = int(numbers.max()) + 1
    sums = values.new_zeros(count).index_add(0, numbers, values)
    return (sums / torch.bincount(numbers, minlength=count)).mean()


__all__ = ["MARKS", "AnswerDistiller", "mean_per_sample"]
