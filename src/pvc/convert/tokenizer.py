"""Tokenizer, chat template and processors of a converted model.

Tokens that media need and the source lacks are added at the end of its vocabulary. Called by `from_internvl.py`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from transformers import AddedToken, PreTrainedTokenizerFast, Qwen2TokenizerFast

from pvc.checkpoint.files import read_json
from pvc.checkpoint.loading import check_template
from pvc.convert.source import CHATML, IMAGENET, Source
from pvc.errors import CheckpointError, PVCError
from pvc.model.config import PVCConfig
from pvc.processing.image import PVCImageProcessor
from pvc.processing.processor import PVCProcessor
from pvc.processing.tokenizer import CHAT_TEMPLATE
from pvc.processing.video import PVCVideoProcessor

MEDIA_TOKENS = {
    "start_image_token": "<img>",
    "end_image_token": "</img>",
    "context_image_token": "<IMG_CONTEXT>",
    "video_token": "<video>",
}
END_OF_TURN = "<|im_end|>"
_TILING = frozenset({"min_patches", "max_patches", "use_thumbnail", "pad2square"})


def load_tokenizer(source: Source) -> PreTrainedTokenizerFast:
    """Load the source's tokenizer as a fast tokenizer and add the media tokens.

    Raises:
        CheckpointError: the directory has no tokenizer, or it cannot be read without executing code from it.
    """
    directory = source.directory
    if (directory / "tokenizer.json").exists():
        loaded = _read_tokenizer(PreTrainedTokenizerFast, directory)
    elif (directory / "vocab.json").exists():
        loaded = _read_tokenizer(Qwen2TokenizerFast, directory)
    elif (directory / "tokenizer.model").exists():
        from pvc.convert.sentencepiece import read_sentencepiece

        loaded = read_sentencepiece(directory)
    else:
        raise CheckpointError(f"{directory} has no tokenizer (tokenizer.json, vocab.json or tokenizer.model)")
    known = set(loaded.get_vocab())
    missing = [token for token in (*MEDIA_TOKENS.values(), END_OF_TURN) if token not in known]
    loaded.add_tokens([AddedToken(token, special=True, normalized=False) for token in missing])
    # A model's tokenizer class would be looked up, and its settings read, again when the result is loaded.
    return PreTrainedTokenizerFast(
        tokenizer_object=loaded.backend_tokenizer,
        bos_token=loaded.bos_token,
        eos_token=END_OF_TURN if END_OF_TURN in known else loaded.eos_token or END_OF_TURN,
        pad_token=loaded.pad_token or loaded.eos_token or END_OF_TURN,
        unk_token=loaded.unk_token,
        extra_special_tokens=MEDIA_TOKENS,
        padding_side="left",
        clean_up_tokenization_spaces=False,
    )


def _read_tokenizer(tokenizer_class: Any, directory: Path) -> PreTrainedTokenizerFast:
    """Read a tokenizer without executing the code that original checkpoints contain for theirs."""
    try:
        return tokenizer_class.from_pretrained(directory, local_files_only=True)
    except Exception as error:  # a malformed file can raise any exception in the libraries
        message = " ".join(str(error).split())[:300]
        raise CheckpointError(f"cannot read the tokenizer of {directory}: {message}") from error


def build_processor(
    source: Source, tokenizer: PreTrainedTokenizerFast, config: PVCConfig, num_frames: int
) -> tuple[PVCProcessor, tuple[str, ...]]:
    """Build the processor of a converted model, whose prompts equal the source's.

    The source's chat template is used if it works with media parts, else ChatML.

    Args:
        source: checkpoint to convert.
        tokenizer: result of `load_tokenizer`.
        config: of the converted model.
        num_frames: default number of frames of a video.

    Returns:
        The processor, and warnings.
    """
    side = config.vision_config.image_size[0]
    size = {"height": side, "width": side}
    normalization = {key: source.image_settings.get(key, IMAGENET[key]) for key in IMAGENET}
    tiling = {key: value for key, value in source.image_settings.items() if key in _TILING}
    source_template = _read_template(source.directory)
    processor = PVCProcessor(
        PVCImageProcessor(size=size, image_steps=config.image_steps, **normalization, **tiling),
        tokenizer,
        PVCVideoProcessor(size=size, num_frames=num_frames, **normalization),
        tokens_per_frame=config.tokens_per_frame,
        chat_template=source_template or _build_chatml(source, tokenizer),
        frame_prefix="index",  # the text before frames that InternVL was trained with
    )
    warnings: tuple[str, ...] = ()
    try:
        check_template(processor, videos=True)
    except PVCError as error:
        warnings = (f"the source's chat template is not used ({error}); ChatML takes its place",)
        processor.chat_template = tokenizer.chat_template = _build_chatml(source, tokenizer)
        check_template(processor, videos=True)
        source_template = None
    if source_template is None and source.template is not None and source.template not in CHATML:
        warnings += (
            f"template is {source.template[:60]!r}, which is not supported; ChatML takes its place, and the "
            f"model may expect another layout of turns (supported: {', '.join(CHATML)})",
        )
    return processor, (*warnings, *source.warnings)


def _build_chatml(source: Source, tokenizer: PreTrainedTokenizerFast) -> str:
    """Build a ChatML template that begins with the BOS token if the source's tokenizer adds one to every text.

    `add_bos_token` in tokenizer_config.json decides; without it, whether an encoded text begins with the token.
    """
    path = source.directory / "tokenizer_config.json"
    settings = read_json(path) if path.exists() else {}
    add_bos = settings.get("add_bos_token", source.language == "internlm2")  # InternLM2's tokenizer adds it by default
    if "add_bos_token" not in settings and tokenizer.bos_token is not None:
        add_bos |= tokenizer("x")["input_ids"][:1] == [tokenizer.bos_token_id]
    template = CHAT_TEMPLATE.replace(f"{END_OF_TURN}\n", f"{END_OF_TURN}{source.separator}")
    return (tokenizer.bos_token or "") * bool(add_bos) + template


def _read_template(directory: Path) -> str | None:
    path = directory / "chat_template.jinja"
    if path.exists():
        return path.read_text(encoding="utf-8")
    for name in ("chat_template.json", "processor_config.json"):
        if (directory / name).exists():
            template: Any = read_json(directory / name).get("chat_template")
            if isinstance(template, str):
                return template
    return None


__all__ = ["END_OF_TURN", "MEDIA_TOKENS", "build_processor", "load_tokenizer"]
