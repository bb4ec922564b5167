"""Tokenizer, chat template and processors of a converted model.

Every token that media need is there afterwards; those that the source lacks are added at the end of its vocabulary.
Leaves out tensors. Called by `from_internvl.py`.
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
    """The source's tokenizer as a fast one that knows the media tokens.

    Raises:
        CheckpointError: there is none, or it cannot be read without code of its own.
    """
    directory = source.directory
    if (directory / "tokenizer.json").exists():
        own = _read(PreTrainedTokenizerFast, directory)
    elif (directory / "vocab.json").exists():
        own = _read(Qwen2TokenizerFast, directory)
    elif (directory / "tokenizer.model").exists():
        from pvc.convert.sentencepiece import read_sentencepiece

        own = read_sentencepiece(directory)
    else:
        raise CheckpointError(f"{directory} has no tokenizer (tokenizer.json, vocab.json or tokenizer.model)")
    known = set(own.get_vocab())
    missing = [token for token in (*MEDIA_TOKENS.values(), END_OF_TURN) if token not in known]
    own.add_tokens([AddedToken(token, special=True, normalized=False) for token in missing])
    # A class of its own would be looked up, and its settings read, again when the result is loaded.
    return PreTrainedTokenizerFast(
        tokenizer_object=own.backend_tokenizer,
        bos_token=own.bos_token,
        eos_token=END_OF_TURN if END_OF_TURN in known else own.eos_token or END_OF_TURN,
        pad_token=own.pad_token or own.eos_token or END_OF_TURN,
        unk_token=own.unk_token,
        extra_special_tokens=MEDIA_TOKENS,
        padding_side="left",
        clean_up_tokenization_spaces=False,
    )


def _read(kind: Any, directory: Path) -> PreTrainedTokenizerFast:
    """Read without the code that original checkpoints bring along for theirs."""
    try:
        return kind.from_pretrained(directory, local_files_only=True)
    except Exception as error:  # whatever a hostile or clumsy file provokes in the libraries is the file's fault
        told = " ".join(str(error).split())[:300]
        raise CheckpointError(f"cannot read the tokenizer of {directory}: {told}") from error


def build_processor(
    source: Source, tokenizer: PreTrainedTokenizerFast, config: PVCConfig, num_frames: int
) -> tuple[PVCProcessor, tuple[str, ...]]:
    """Make the processor of a converted model, whose prompts are those of the source.

    The source's chat template is kept where it works with media parts; else ChatML takes its place.

    Args:
        source: what is converted.
        tokenizer: as `load_tokenizer` made it.
        config: of the converted model.
        num_frames: of a video where nothing else is asked for.

    Returns:
        The processor, and warnings.
    """
    side = config.vision_config.image_size[0]
    size = {"height": side, "width": side}
    look = {key: source.pictures.get(key, IMAGENET[key]) for key in IMAGENET}
    tiles = {key: value for key, value in source.pictures.items() if key in _TILING}
    own_template = _template(source.directory)
    processor = PVCProcessor(
        PVCImageProcessor(size=size, image_steps=config.image_steps, **look, **tiles),
        tokenizer,
        PVCVideoProcessor(size=size, num_frames=num_frames, **look),
        tokens_per_frame=config.tokens_per_frame,
        chat_template=own_template or _chatml(source, tokenizer),
        frame_prefix="index",  # the text before frames that InternVL was trained with
    )
    warnings: tuple[str, ...] = ()
    try:
        check_template(processor, videos=True)
    except PVCError as error:
        warnings = (f"the source's chat template is not used ({error}); ChatML takes its place",)
        processor.chat_template = tokenizer.chat_template = _chatml(source, tokenizer)
        check_template(processor, videos=True)
        own_template = None
    if own_template is None and source.template is not None and source.template not in CHATML:
        warnings += (
            f"template is {source.template[:60]!r}, of which nothing is known here; ChatML takes its place, and the "
            f"model may expect another layout of turns (known: {', '.join(CHATML)})",
        )
    return processor, (*warnings, *source.warnings)


def _chatml(source: Source, tokenizer: PreTrainedTokenizerFast) -> str:
    """ChatML, behind the token that begins every text where the source's tokenizer puts one there.

    Its configuration says so, or what it makes of a text.
    """
    path = source.directory / "tokenizer_config.json"
    settings = read_json(path) if path.exists() else {}
    begins = settings.get("add_bos_token", source.language == "internlm2")  # whose tokenizer does unless told otherwise
    if "add_bos_token" not in settings and tokenizer.bos_token is not None:
        begins |= tokenizer("x")["input_ids"][:1] == [tokenizer.bos_token_id]
    template = CHAT_TEMPLATE.replace(f"{END_OF_TURN}\n", f"{END_OF_TURN}{source.separator}")
    return (tokenizer.bos_token or "") * bool(begins) + template


def _template(directory: Path) -> str | None:
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
