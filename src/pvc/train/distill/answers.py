"""The answer loss: compare the student's predictions and hidden states with the teacher's, on the teacher's answers.

Trainer calls `AnswerDistiller.forward`; `setup.py` builds the module and `answer_data.py` its batches.

B rows, Q and Q' tokens of a row of the student and of the teacher, V vocabulary, P positions that predict a token of
an answer, R positions of text after the media, D hidden width, k stored tokens a position.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import nn

from pvc.train.distill.teacher import PIXELS, FrozenTeacher, get_teacher_text, run_teacher
from pvc.train.distill.teacher_cache import kl_divergence, top_divergence

MARKS = ("answer", "after")
EMBEDDING, OUTPUT = "student.model.language_model.embed_tokens.weight", "student.lm_head.weight"


class AnswerDistiller(nn.Module):
    """Student, teacher and the loss between the outputs of their language models.

    The loss of a sample is the mean KL divergence (temperature 1) of the student's from the teacher's predictions at
    the answer's positions, and the mean-squared difference of the last hidden states at all text after the media, over
    the variance of the teacher's.

    Args:
        student: whole model.
        teacher: whole model; it is not among the parameters. It is None if all batches have its stored outputs.
    """

    # The loss is a mean over its batch; otherwise Trainer would scale it by the number of processes.
    accepts_loss_kwargs = False
    variance: torch.Tensor

    def __init__(self, student: Any, teacher: Any | None) -> None:
        super().__init__()
        self.student = student
        self._no_split_modules = student._no_split_modules
        self._teacher = None if teacher is None else FrozenTeacher(teacher)
        self.register_buffer("variance", torch.tensor(1.0))
        if student.config.tie_word_embeddings:
            # Checkpoints of plain modules must not have one tensor under two names.
            self.register_state_dict_post_hook(_remove_tied)
            self.register_load_state_dict_pre_hook(_restore_tied)

    def activation_checkpointing_enable(self, *args: Any, **kwargs: Any) -> None:
        """Recompute the student's activations in the backward pass; called by Trainer.

        Args:
            *args: of the student's method.
            **kwargs: of the student's method.
        """
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
        """Compute the loss of a batch: the mean over its examples.

        The media inputs are those of the model; the teacher's pictures are encoded in one step.

        Args:
            input_ids: `(B, Q)` int64, the student's text.
            answer: `(B, Q)` int64: the number of the example, from 1, if a position predicts a token of an answer.
            after: `(B, Q)` int64: the number of the example, from 1, if a position is text after the media.
            attention_mask: `(B, Q)`, of padded rows.
            position_ids: `(B, Q)`, of packed rows.
            pixel_values: pictures.
            image_grid_thw: of pictures.
            image_steps: of the student's pictures.
            pixel_values_videos: videos.
            video_grid_thw: of videos.
            step_offset: of the student's videos.
            **teacher: `teacher_input_ids`, `teacher_answer` and so on, `(B, Q')`, in the same rows (with more visual
                tokens); or stored outputs: `teacher_indices` and `teacher_log_probs` `(P, k)` and `teacher_hidden`
                `(R, D)`.
        """
        media = {"pixel_values": pixel_values, "image_grid_thw": image_grid_thw}
        media |= {"pixel_values_videos": pixel_values_videos, "video_grid_thw": video_grid_thw}
        expected, log_probs = self._compute_teacher_outputs(media, teacher, input_ids.device)
        hidden = self.student.model(
            input_ids=input_ids,
            attention_mask=attention_mask,
            position_ids=position_ids,
            image_steps=image_steps,
            step_offset=step_offset,
            use_cache=False,
            **media,
        ).last_hidden_state
        student_log_probs = self.student.lm_head(hidden[answer > 0]).float().log_softmax(-1)
        if log_probs is not None:
            divergence = kl_divergence(student_log_probs, log_probs)
        else:
            stored = teacher["teacher_indices"], teacher["teacher_log_probs"]
            divergence = top_divergence(student_log_probs, *stored)
        squares = (hidden[after > 0].float() - expected).square().mean(-1) / self.variance
        return {"loss": compute_example_mean(divergence, answer) + compute_example_mean(squares, after)}

    def _compute_teacher_outputs(
        self, media: Mapping[str, Any], teacher: Mapping[str, torch.Tensor], device: torch.device
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Return hidden states `(R, D)`, and log-probabilities `(P, V)` unless they are stored."""
        if "teacher_hidden" in teacher:
            return teacher["teacher_hidden"].float(), None
        assert self._teacher is not None
        return run_teacher(self._teacher.to_device(device), media, get_teacher_text(teacher))

    @torch.no_grad()
    def measure_variance(self, batches: Iterable[dict[str, torch.Tensor]], device: torch.device) -> None:
        """Set `variance` from the teacher's hidden states after the media: the mean over channels.

        Args:
            batches: of the stage.
            device: of the teacher.
        """
        states = []
        for batch in batches:
            inputs = {name: value.to(device) for name, value in batch.items()}
            media = {name: inputs.get(name) for name in PIXELS}
            states.append(self._compute_teacher_outputs(media, inputs, device)[0])
        self.variance.fill_(torch.cat(states).var(0).mean().clamp(min=1e-12).item())


def _remove_tied(module: nn.Module, state: dict[str, Any], prefix: str, metadata: Any) -> None:
    state.pop(f"{prefix}{OUTPUT}", None)


def _restore_tied(module: nn.Module, state: dict[str, Any], prefix: str, *args: Any) -> None:
    if f"{prefix}{EMBEDDING}" in state:
        state.setdefault(f"{prefix}{OUTPUT}", state[f"{prefix}{EMBEDDING}"])


def compute_example_mean(values: torch.Tensor, marks: torch.Tensor) -> torch.Tensor:
    """Compute the mean over examples of their mean values.

    Args:
        values: `(P,)`, of the positions with a mark.
        marks: `(B, Q)` int64: the number of the example, from 1, at P positions; 0 elsewhere.
    """
    numbers = marks[marks > 0] - 1
    count = int(numbers.max()) + 1
    sums = values.new_zeros(count).index_add(0, numbers, values)
    return (sums / torch.bincount(numbers, minlength=count)).mean()


__all__ = ["MARKS", "AnswerDistiller", "compute_example_mean"]
