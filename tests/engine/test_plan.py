"""Plans: exact tokens before anything is decoded, bytes that really live, limits kept, both numbers in refusals."""

import copy
import json
import weakref

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import pvc
from pvc.engine import memory_model
from pvc.engine.encode import encode_video
from pvc.engine.options import MediaOptions
from pvc.errors import MediaError, MismatchError, UsageError
from pvc.media import Picture, Sampling, Video, load_video, write_video
from pvc.media.outline import outline
from pvc.testing import tiny_model, tiny_processor


def noise(seed, *shape):
    return np.random.default_rng(seed).integers(0, 256, (*shape, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def engine(checkpoint):
    return pvc.load(checkpoint, device="cpu")


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Pictures of several shapes, videos long, short and uneven in time, an animation."""
    folder = tmp_path_factory.mktemp("media")
    Image.fromarray(noise(0, 40, 90)).save(folder / "wide.png")
    Image.fromarray(noise(1, 20, 20)).save(folder / "small.png")
    sideways = Image.Exif()
    sideways[0x0112] = 6
    Image.fromarray(noise(2, 32, 128)).save(folder / "sideways.jpg", exif=sideways)
    write_video(folder / "long.mp4", noise(3, 40, 32, 32), fps=8)
    write_video(folder / "short.mp4", noise(4, 3, 32, 32), fps=4)
    uneven = [Image.fromarray(frame) for frame in noise(5, 12, 32, 32)]
    held = [40] * 6 + [3000] * 2 + [40] * 4
    uneven[0].save(folder / "uneven.gif", save_all=True, append_images=uneven[1:], duration=held, loop=0)
    return {path.name: path for path in folder.iterdir()}


def encoded(engine, sources, plan):
    opened = [engine.open(source, options) for source, options in zip(sources, plan.options, strict=True)]
    return engine.encode(opened, plan.options)


BUDGETS = [None, 4, 5, 6, 7, 9, 12, 16, 17, 25, 40, 1000]


@pytest.mark.parametrize("budget", BUDGETS)
def test_tokens_are_exact_and_within_the_budget(engine, files, budget):
    sources = [files[name] for name in ("wide.png", "long.mp4", "short.mp4", "uneven.gif")]
    plan = engine.plan(sources, budget=budget)
    real = encoded(engine, sources, plan)
    assert [len(item.tokens) for item in real] == [choice.tokens for choice in plan.choices]
    assert plan.tokens == sum(choice.tokens for choice in plan.choices)
    picture = plan.choices[0].taken
    assert (real[0].tiles, real[0].steps) == (picture.tiles, picture.steps)
    assert [item.steps for item in real[1:]] == [choice.taken.frames for choice in plan.choices[1:]]
    if budget is not None:
        assert plan.tokens <= budget
    assert plan.reduced == (budget is not None and budget < engine.plan(sources).tokens)


@pytest.mark.parametrize("name", ["wide.png", "small.png", "sideways.jpg"])
@pytest.mark.parametrize("tiles", [1, 2, 3, 4, 7, 12])
def test_tiles_and_thumbnail_are_counted(engine, files, name, tiles):
    options = MediaOptions(max_tiles=tiles, image_steps=2)
    plan = engine.plan(files[name], options=options)
    (real,) = engine.encode([engine.open(files[name])], options)  # without the plan's own options
    assert (plan.choices[0].taken.tiles, plan.tokens) == (real.tiles, len(real.tokens))
    assert [len(item.tokens) for item in encoded(engine, [files[name]], plan)] == [plan.tokens]


@pytest.mark.parametrize("budget", [None, 1, 3, 4, 6, 9])
def test_tiles_without_a_thumbnail_are_counted(engine, files, budget):
    changed = copy.copy(engine)
    changed.processor = copy.deepcopy(engine.processor)
    changed.processor.image_processor.use_thumbnail = False
    options = MediaOptions(max_tiles=6, image_steps=2)
    sources = [files["wide.png"], files["sideways.jpg"]]
    least = changed.plan(sources, options=options, budget=2).tokens
    assert least == 2
    plan = changed.plan(sources, options=options, budget=None if budget is None else least * budget)
    real = encoded(changed, sources, plan)
    assert [len(item.tokens) for item in real] == [choice.tokens for choice in plan.choices]
    assert [item.tiles for item in real] == [choice.taken.tiles for choice in plan.choices]
    full = [item.tiles for item in engine.encode([engine.open(path) for path in sources], options)]
    if budget is None:
        assert [item.tiles for item in real] == [tiles - 1 for tiles in full]


@pytest.mark.parametrize(
    "options",
    [
        MediaOptions(frames=40),
        MediaOptions(frames=9),
        MediaOptions(frames=100),
        MediaOptions(fps=3),
        MediaOptions(times=(0.0, 0.01, 0.2, 0.3, 0.35)),
    ],
)
@pytest.mark.parametrize("name", ["long.mp4", "short.mp4", "uneven.gif"])
@pytest.mark.parametrize("budget", [None, 1, 2, 5])
def test_every_way_of_sampling(engine, files, options, name, budget):
    plan = engine.plan(files[name], budget=budget, options=options)
    whole = engine.encode([engine.open(files[name], options)])[0]
    (real,) = encoded(engine, [files[name]], plan)
    assert plan.choices[0].asked.frames == len(whole.timestamps)
    assert len(real.tokens) == plan.tokens <= (budget or 10**9)
    if options.times or options.fps:
        assert set(real.timestamps) <= set(whole.timestamps), "of the frames asked for"
    if budget is None:
        assert real.timestamps == whole.timestamps


def test_outlines_pick_what_decoding_picks(files, tmp_path):
    # Matroska rounds 1/30 s to milliseconds: the frames at 30 a second are found only with the same tolerance.
    write_video(tmp_path / "rounded.mkv", noise(6, 45, 32, 32), fps=30)
    for path in (tmp_path / "rounded.mkv", files["long.mp4"], files["uneven.gif"]):
        for sampling in (Sampling(fps=30), Sampling(fps=7), Sampling(frames=5), Sampling(frames=11)):
            assert outline(path).picked(sampling) == pytest.approx(load_video(path, sampling).timestamps, abs=1e-9)


def test_media_in_memory(engine):
    uneven = Video.from_frames(noise(7, 20, 16, 16), timestamps=[*range(10), *(100 + time for time in range(10))])
    pil = Image.fromarray(noise(8, 33, 70))
    sources = [uneven, noise(9, 9, 32, 32), [pil] * 8, pil, noise(10, 50, 20), Picture(pil)]
    for budget in (None, 6, 9, 11, 14, 20, 60):
        plan = engine.plan(sources, budget=budget)
        assert [len(item.tokens) for item in encoded(engine, sources, plan)] == [c.tokens for c in plan.choices]
        assert budget is None or plan.tokens <= budget
    assert engine.plan(uneven).choices[0].taken.frames == 20, "a Video is taken as it is"
    for wrong, error in (([], UsageError), (5, UsageError), ("nowhere.png", MediaError)):
        with pytest.raises(error):
            engine.plan([wrong])


def test_nothing_is_decoded(engine, files, monkeypatch):
    from pvc.media import decode, image

    def refuse(*args, **kwargs):
        raise AssertionError("decoded")

    monkeypatch.setattr(decode, "read_video", refuse)
    monkeypatch.setattr(image, "read_image", refuse)
    monkeypatch.setattr(Image.Image, "load", refuse)
    plan = engine.plan([files["wide.png"], files["long.mp4"], files["uneven.gif"]], budget=9)
    assert plan.tokens == 9


def test_a_file_that_holds_less_than_its_header_says_stays_within_the_plan(engine, files, tmp_path):
    data = bytearray(files["long.mp4"].read_bytes())
    start, end = data.index(b"mdat") + 4, data.index(b"moov")
    assert start < end
    middle = (start + end) // 2
    data[middle : end - 4] = bytes(end - 4 - middle)
    path = tmp_path / "damaged.mp4"
    path.write_bytes(data)
    for budget in (None, 30, 5):
        plan = engine.plan(path, budget=budget, options=MediaOptions(frames=40))
        (real,) = encoded(engine, [path], plan)
        assert any("partial_decode" in warning for warning in real.warnings)
        assert len(real.tokens) < plan.tokens if budget is None else len(real.tokens) <= plan.tokens == budget


def test_shares_are_fair_and_the_same_every_time(engine, files):
    sources = [files["wide.png"], files["long.mp4"], files["long.mp4"]]
    options = MediaOptions(frames=12)
    assert engine.plan(sources, options=options).tokens == 36
    plans = [engine.plan(sources, budget=18, options=options) for _ in range(2)]
    assert plans[0].choices == plans[1].choices
    assert [choice.tokens for choice in plans[0].choices] == [6, 6, 6]
    picture = plans[0].choices[0].taken
    assert (picture.tiles, picture.steps) == (3, 2), "steps go before tiles"
    tokens = [engine.plan(sources, budget=budget, options=options).tokens for budget in range(3, 40)]
    assert tokens == sorted(tokens)


def test_memory_is_kept_to(engine, files):
    sources = [files["wide.png"], files["long.mp4"]]
    options = MediaOptions(frames=40)
    whole = engine.plan(sources, options=options)
    least = engine.plan(sources, options=MediaOptions(frames=1, max_tiles=1, image_steps=1))
    frames = []
    for memory in np.linspace(least.memory_bytes, whole.memory_bytes, 6).astype(int).tolist():
        plan = engine.plan(sources, memory=memory, options=options)
        assert plan.memory_bytes <= memory
        assert [len(item.tokens) for item in encoded(engine, sources, plan)] == [c.tokens for c in plan.choices]
        frames.append(plan.choices[1].taken.frames)
    assert frames == sorted(frames) and frames[0] < frames[-1] == 40


def test_the_least_that_does_not_fit_is_refused_with_both_numbers(engine, files):
    sources = [files["wide.png"], files["long.mp4"], files["short.mp4"]]
    with pytest.raises(UsageError, match="budget of 2 visual tokens .* is 3 visual tokens"):
        engine.plan(sources, budget=2)
    assert engine.plan(sources, budget=3).tokens == 3
    least = engine.plan(sources, budget=3).memory_bytes
    with pytest.raises(UsageError, match=f"{least - 1:,} bytes .* takes {least:,} bytes"):
        engine.plan(sources, memory=least - 1)
    assert engine.plan(sources, memory=least).memory_bytes == least
    for wrong in (0, -1, 1.5, True):
        with pytest.raises(UsageError, match="at least 1"):
            engine.plan(sources, budget=wrong)


def test_plan_says_what_was_chosen(engine, files):
    plan = engine.plan([files["wide.png"], files["long.mp4"]], budget=7)
    lines = str(plan).splitlines()
    assert lines[0] == f"{files['wide.png']}: 3 tiles, 1 of 4 steps, 3 tokens"
    assert lines[1] == f"{files['long.mp4']}: 4 of 6 frames, 4 tokens"
    assert "7 visual tokens (budget 7)" in lines[2] and "\n" not in plan.line
    described = json.loads(json.dumps(plan.describe()))
    assert described["media"][1] == {
        "path": str(files["long.mp4"]),
        "kind": "video",
        "frames": 4,
        "asked": {"frames": 6},
        "tokens": 4,
    }
    assert "seconds_estimate" not in described


def test_conversations_take_a_budget(engine, files):
    sources = [files["wide.png"], files["long.mp4"]]
    chat = engine.chat()
    answer = chat.ask("what?", sources, budget=8)
    assert answer.visual_tokens == chat.plan.tokens == 8
    again = engine.chat()
    again.ask("what?", sources, media_options=chat.plan.options)
    assert again.last.text == answer.text and again.plan is None
    chat.add(sources, budget=3)
    assert [len(item.tokens) for item in chat.ask("and?").media] == [1, 2]
    with pytest.raises(MismatchError, match="2 media, but 1"):
        chat.ask("what?", sources[:1], media_options=chat.plan.options)
    with pytest.raises(UsageError, match="not both"):
        chat.ask("what?", sources, media_options=chat.plan.options, budget=8)
    chat.reset()
    assert chat.plan is None


def test_states_cost_what_they_hold(engine, files, tmp_path):
    state = engine.encode_state(files["short.mp4"])
    state.save(tmp_path / "short.pvc")
    for source in (state, tmp_path / "short.pvc"):
        plan = engine.plan([source, files["long.mp4"]], budget=5)
        assert [choice.tokens for choice in plan.choices] == [3, 2]
        with pytest.raises(UsageError, match="is 4 visual tokens"):
            engine.plan([source, files["long.mp4"]], budget=3)


def test_more_steps_than_the_window_are_refused_as_encoding_does():
    model = tiny_model(vision={"temporal_window": 4})
    windowed = pvc.engine.Engine(model, tiny_processor(model.config), None)
    with pytest.raises(UsageError, match="temporal window, 4"):
        windowed.plan(Image.fromarray(noise(0, 32, 32)), options=MediaOptions(image_steps=5))


class Living(TorchDispatchMode):
    """Counts the bytes of tensors that operations have made and that are still there."""

    def __init__(self):
        super().__init__()
        self.sizes, self.now, self.peak = {}, 0, 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        made = function(*args, **(kwargs or {}))
        given = {t.untyped_storage()._cdata for t in tree_leaves((args, kwargs)) if isinstance(t, torch.Tensor)}
        for tensor in tree_leaves(made):
            if isinstance(tensor, torch.Tensor):
                storage = tensor.untyped_storage()
                key = storage._cdata
                if key not in self.sizes and key not in given:
                    self.sizes[key] = storage.nbytes()
                    self.now += storage.nbytes()
                    self.peak = max(self.peak, self.now)
                    weakref.finalize(storage, self.free, key)
        return made

    def free(self, key):
        self.now -= self.sizes.pop(key, 0)


MODELS = {
    "plain": {},
    "windowed": {"vision": {"temporal_window": 5}},
    "all temporal": {"vision": {"num_temporal_layers": 4, "intermediate_size": 128}},
    "eager": {"attention": "eager"},
    "wide": {"vision": {"intermediate_size": 256}, "downsample_ratio": 0.5},
}


@pytest.mark.parametrize("name", MODELS)
def test_bytes_are_those_that_live(name, monkeypatch):
    """Compare memory_model.py with every tensor that the real code makes; pixels are numpy's and counted apart."""
    model = tiny_model(**MODELS[name])
    processor = tiny_processor(model.config)
    shape = memory_model.Shape.from_model(model)
    monkeypatch.setattr(memory_model, "_prepare_frames", lambda *args: 0)
    monkeypatch.setattr(memory_model, "_prepare_picture", lambda *args: 0)
    for frames in (1, 8, 32, 33, 64, 100):
        video = Video.from_frames(noise(frames, frames, shape.side, shape.side))
        with Living() as living:
            encode_video(model, processor, video)
        held = min(frames, 32) * shape.pixels  # of the chunk at the peak
        assert memory_model.video_bytes(shape, frames) - held == pytest.approx(living.peak, rel=0.04), frames
    for tiles, steps in ((1, 4), (5, 2), (13, 1), (20, 3)):
        with torch.inference_mode(), Living() as living:
            clips = []
            for start in range(0, tiles, 16):
                pixels = torch.zeros(min(16, tiles - start), 3, shape.side, shape.side)
                clips += model.model.encode_clips(pixels, steps=[steps] * len(pixels))[0]
            torch.stack(clips, dim=1).flatten(0, 2)
        pixels = min(16, tiles) * shape.pixels  # which this loop makes itself
        predicted = memory_model.picture_bytes(shape, (32, 32), (1, 1), tiles, steps) - tiles * shape.pixels + pixels
        assert predicted == pytest.approx(living.peak, rel=0.04), (tiles, steps)
