"""A recipe's temporal window: training attends to it as inference does, and a checkpoint carries it."""

import copy

import pytest

import pvc
from pvc.engine import FrameRetention
from pvc.media import Video
from pvc.testing import randomize
from pvc.train.data.collate import ChatCollator
from pvc.train.data.mixture import StageDataset
from pvc.train.model_init import build_model, build_processor
from pvc.train.pipeline import run_recipe
from pvc.train.recipe import Recipe
from tests.train.test_run import TINY

WINDOW = 3
FRAMES = 9


def recipe(window=WINDOW, **changes):
    stage = {
        **copy.deepcopy(TINY["stages"][1]),
        "tasks": {"direction": 1},
        "video_frames": {FRAMES: 1},
        "batch_size": 3,
        **changes,
    }
    model = copy.deepcopy(TINY["model"])
    model["vision"] |= {"temporal_window": window, "num_temporal_layers": 2}
    return Recipe.model_validate({**TINY, "model": model, "stages": [stage]})


def trained_tokens(model, batch, monkeypatch):
    """Visual tokens of a training step, one `(frames, K, L)` tensor for each clip."""
    seen, encode_clips = [], model.model.encode_clips

    def recorded(*args, **options):
        clips, outputs = encode_clips(*args, **options)
        seen.append([clip.detach() for clip in clips])
        return clips, outputs

    with monkeypatch.context() as patch:
        patch.setattr(model.model, "encode_clips", recorded)
        model.train()
        model(**batch, use_cache=False).loss.backward()
        model.eval()
    return seen[0]


def differ(one, two):
    return ((one - two).abs().max() / two.abs().max()).item()


def nearest(one, others):
    return min(range(len(others)), key=lambda number: differ(one, others[number]))


@pytest.mark.parametrize(
    "changes", [{}, {"pack": 400}, {"checkpointing": True}], ids=["padded", "packed", "recomputed"]
)
def test_training_tokens_are_those_of_a_stream(tmp_path, monkeypatch, changes):
    made = recipe(**changes)
    stage, processor = made.stages[0], build_processor(made)
    model = build_model(made, stage, processor)
    randomize(model)  # fresh temporal blocks are the identity, whatever they attend to
    if stage.checkpointing:
        model.activation_checkpointing_enable({"use_reentrant": False})
    samples = StageDataset(stage, 0, 32, processor=processor)
    items = [samples[index] for index in range(stage.batch_size)]
    batch = ChatCollator(processor, stage.pack)(items)
    tokens = trained_tokens(model, batch, monkeypatch)
    assert [len(clip) for clip in tokens] == [FRAMES] * len(items)
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)

    engine = pvc.load(tmp_path, device="cpu", dtype="float32")
    for item in items:
        (video,) = item.generated.origin.media
        stream = engine.live(keep=FrameRetention.latest(FRAMES))
        assert stream.window == WINDOW
        for frame, time in zip(video.frames, video.timestamps, strict=True):
            stream.push(frame, time)
        clip = tokens.pop(nearest(stream.tokens, tokens))  # packing puts them in another order
        assert differ(stream.tokens, clip) < 1e-5
        (whole,) = engine.encode([Video(video.frames, tuple(video.timestamps))])
        assert differ(whole.tokens.view_as(clip), clip) < 1e-5
        # The window is shorter than the clip, so that it matters.
        without = engine.live(keep=FrameRetention.latest(FRAMES), window=FRAMES)
        for frame, time in zip(video.frames, video.timestamps, strict=True):
            without.push(frame, time)
        assert differ(without.tokens[:WINDOW], clip[:WINDOW]) < 1e-5
        assert differ(without.tokens[WINDOW:], clip[WINDOW:]) > 1e-3


def test_a_trained_checkpoint_has_the_window(tmp_path):
    made = recipe(steps=1, batch_size=2)
    model = run_recipe(made, tmp_path / "run", report=lambda line: None)
    engine = pvc.load(model, device="cpu")
    assert engine.model.config.vision_config.temporal_window == WINDOW
    assert engine.live().window == WINDOW
    # A recipe without a model that starts from it trains with the same window.
    again = Recipe.model_validate({"name": "again", "start": str(model), "stages": [made.stages[0].model_dump()]})
    model = run_recipe(again, tmp_path / "again", report=lambda line: None)
    assert pvc.load(model, device="cpu").live().window == WINDOW
