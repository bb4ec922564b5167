"""Visual states: the same answers as the media they are of, the same bits when continued elsewhere, and no other's."""

import copy
import json
import shutil
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import pvc
from pvc.checkpoint.state_file import KEY, open_state
from pvc.engine.options import MediaOptions
from pvc.errors import CheckpointError, MediaError, MismatchError, PVCError, UsageError
from pvc.media import Video
from pvc.testing import write_tiny_checkpoint
from tests.engine.test_chat import picture, video


@pytest.fixture(scope="module")
def engine(checkpoint):
    return pvc.load(checkpoint, device="cpu")


def part(of, start, stop):
    return Video(of.frames[start:stop], of.timestamps[start:stop])


@pytest.fixture
def saved(engine, tmp_path):
    return engine.encode_state(part(video(3, 8), 0, 5)).save(tmp_path / "clip.pvc")


@pytest.mark.parametrize("item", [video(1, 6), picture(2, (100, 40)), video(5, 40)], ids=["video", "tiles", "chunks"])
def test_a_state_answers_as_its_media_do(engine, item, tmp_path):
    path = engine.encode_state(item).save(tmp_path / "x.pvc")
    direct, kept = engine.chat().ask("what is it?", item), engine.chat().ask("what is it?", str(path))
    assert direct.text == kept.text
    assert direct.prompt_tokens == kept.prompt_tokens
    assert torch.equal(engine.load_state(path).media.tokens, engine.encode_state(item).media.tokens)
    scale = direct.media[0].tokens.abs().max()
    assert (kept.media[0].tokens - direct.media[0].tokens).abs().max() <= 1e-5 * scale


def test_options_of_pictures_reach_the_state(engine):
    state = engine.encode_state(picture(2, (100, 40)), MediaOptions(image_steps=1, max_tiles=1))
    assert (state.media.tiles, state.media.steps, state.cache) == (1, 1, None)


_CONTINUE = """
import sys, numpy, torch, pvc
from pvc.media import Video
torch.set_num_threads(1)
directory, state, frames, out = sys.argv[1:]
engine = pvc.load(directory, device="cpu")
data = numpy.load(frames)
engine.continue_state(engine.load_state(state), Video(data["frames"], tuple(data["times"].tolist()))).save(out)
"""


def test_continuing_in_another_process_gives_the_same_bits(engine, checkpoint, tmp_path):
    whole = video(7, 12)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        first = engine.encode_state(part(whole, 0, 5))
        here = engine.continue_state(first, part(whole, 5, 12)).save(tmp_path / "here.pvc")
        first.save(tmp_path / "half.pvc")
    finally:
        torch.set_num_threads(threads)
    np.savez(tmp_path / "rest.npz", frames=whole.frames[5:], times=np.array(whole.timestamps[5:]))
    arguments = [checkpoint, tmp_path / "half.pvc", tmp_path / "rest.npz", tmp_path / "there.pvc"]
    subprocess.run([sys.executable, "-c", _CONTINUE, *map(str, arguments)], check=True)
    one, two = load_file(here), load_file(tmp_path / "there.pvc")
    assert one.keys() == two.keys()
    assert all(torch.equal(one[name], two[name]) for name in one)
    # ... and the bits are right: the whole video at once, but for rounding.
    offline = engine.encode([whole])[0].tokens
    assert (one["tokens"] - offline).abs().max() <= 1e-5 * offline.abs().max()
    loaded = engine.load_state(tmp_path / "there.pvc")
    assert loaded.media.timestamps == whole.timestamps
    assert loaded.chunks == (5, 7)
    assert [len(source["timestamps"]) for source in loaded.sources] == [5, 7]


def test_only_what_comes_later_is_appended(engine, saved):
    state = engine.load_state(saved)
    with pytest.raises(MismatchError, match="has come to 2 s"):
        engine.continue_state(state, part(video(3, 8), 4, 8))
    with pytest.raises(UsageError, match="with the frames of a video"):
        engine.continue_state(state, picture(1))
    with pytest.raises(UsageError, match="is a picture"):
        engine.continue_state(engine.encode_state(picture(1)), part(video(3, 8), 5, 8))


def test_a_final_state_is_smaller_and_cannot_be_continued(engine, saved, tmp_path):
    state = engine.load_state(saved)
    final = state.save(tmp_path / "final.pvc", cache=False)
    assert final.stat().st_size < saved.stat().st_size
    assert engine.chat().ask("what is it?", final).text == engine.chat().ask("what is it?", saved).text
    with pytest.raises(UsageError, match="without its cache"):
        engine.continue_state(engine.load_state(final), part(video(3, 8), 5, 8))


def test_relative_timesteps_cannot_be_continued(tmp_path):
    write_tiny_checkpoint(tmp_path / "relative", vision={"timestep": "relative", "timestep_scale": 1000.0})
    relative = pvc.load(tmp_path / "relative", device="cpu")
    state = relative.encode_state(part(video(3, 8), 0, 5))
    assert state.cache is None
    with pytest.raises(UsageError, match="relative timesteps"):
        relative.continue_state(state, part(video(3, 8), 5, 8))


def test_another_checkpoint_and_other_settings_are_refused_with_both_fingerprints(engine, saved, tmp_path):
    write_tiny_checkpoint(tmp_path / "other", seed=1)
    other = pvc.load(tmp_path / "other", device="cpu")
    with pytest.raises(CheckpointError) as caught:
        other.load_state(saved)
    assert engine.fingerprint[:12] in str(caught.value)
    assert other.fingerprint[:12] in str(caught.value)
    state = engine.load_state(saved)
    with pytest.raises(CheckpointError, match="another checkpoint"):
        other.chat().ask("what is it?", state)
    changed = replace(state, settings={**state.settings, "image_mean": [0.5, 0.5, 0.5]})
    with pytest.raises(CheckpointError, match=r"other settings \(.{12}\).*\(.{12}\): image_mean differ"):
        engine.chat().ask("what is it?", changed)
    half = pvc.load(engine.directory, device="cpu", dtype="bfloat16")
    with pytest.raises(CheckpointError, match=r"dtype differ; load the model in float32 \(--dtype\)"):
        half.load_state(saved)


def test_states_do_not_depend_on_the_text_before_frames(engine, saved):
    changed = copy.copy(engine)
    changed.processor = copy.deepcopy(engine.processor)
    changed.processor.frame_prefix = "index"
    state = changed.load_state(saved)
    assert state.settings == engine.load_state(saved).settings
    assert changed.fingerprint == engine.fingerprint
    expected = changed.chat().ask("what is it?", part(video(3, 8), 0, 5))
    answer = changed.chat().ask("what is it?", state)
    assert (answer.text, answer.prompt_tokens) == (expected.text, expected.prompt_tokens)


@pytest.mark.parametrize(("name", "value"), [("use_thumbnail", False), ("pad2square", True)])
def test_states_depend_on_how_pictures_are_cut(engine, tmp_path, name, value):
    changed = copy.copy(engine)
    changed.processor = copy.deepcopy(engine.processor)
    setattr(changed.processor.image_processor, name, value)
    path = changed.encode_state(picture(2, (100, 40))).save(tmp_path / "x.pvc")
    changed.load_state(path)
    with pytest.raises(CheckpointError, match=f"{name} differ"):
        engine.load_state(path)


def test_the_fingerprint_is_of_what_visual_tokens_come_from(engine, checkpoint):
    again = pvc.load(checkpoint, device="cpu")
    assert again.fingerprint == engine.fingerprint
    with torch.no_grad():
        again.model.lm_head.weight[0, 0] += 1
    del again.__dict__["fingerprint"]
    assert again.fingerprint == engine.fingerprint
    with torch.no_grad():
        again.model.model.vision_tower.embeddings.cls_token[0, 0, 0] += 1e-3
    del again.__dict__["fingerprint"]
    assert again.fingerprint != engine.fingerprint


def rewritten(path, change, tensors=None):
    with safe_open(path, "pt") as file:
        manifest = json.loads(file.metadata()[KEY])
    kept = load_file(path)
    change(manifest)
    if tensors:
        tensors(kept)
    save_file(kept, path, metadata={KEY: json.dumps(manifest)})
    return path


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: m.update(format=99), "of format 99"),
        (lambda m: m.pop("checkpoint"), "checkpoint is missing"),
        (lambda m: m.update(steps=4), "5 visual tokens, but its manifest speaks of 4"),
        (lambda m: m.update(steps=True), "steps is True"),
        (lambda m: m.update(kind="audio"), "kind is 'audio'"),
        (lambda m: m.update(timestamps=[0.0]), "1 timestamps for 5 frames"),
        (lambda m: m.update(timestamps=[0, 1, 2, 3, float("nan")]), "no times"),
        (lambda m: m.update(chunks=[4]), r"chunks of \[4\] frames for 5"),
        (lambda m: m["cache"].update(layers=7), "should have 7 layers"),
        (lambda m: m["cache"].update(steps=3), "of 3 steps and a window of None, its tokens of 5"),
        (lambda m: m.update(settings={}), "counts below 1"),
        (lambda m: m.update(cache=None), "a cache of . tensors, but its manifest speaks of none"),
        (lambda m: m["cache"].update(layers=10**12), "should have 10"),
        (lambda m: m["cache"].update(window="x"), "a window of 'x'"),
        (lambda m: m.update(chunks=["5"]), "chunks of"),
        (lambda m: m.update(sources=[1]), "what it is of"),
        (lambda m: m.update(warnings=[1]), "warnings that are no texts"),
    ],
)
def test_a_manifest_that_contradicts_its_tensors_is_refused(saved, change, message):
    with pytest.raises(MediaError, match=message):
        open_state(rewritten(saved, change))


def test_damaged_tensors_are_refused(engine, saved, tmp_path):
    def cut(tensors):
        tensors["cache.keys.0"] = tensors["cache.keys.0"][:, :3].contiguous()

    def poison(tensors):
        tensors["tokens"][0, 0] = float("nan")

    for number, damage in enumerate((cut, poison)):
        copy = shutil.copy(saved, tmp_path / f"{number}.pvc")
        with pytest.raises(MediaError, match="damaged"):
            engine.load_state(rewritten(tmp_path / copy, lambda manifest: None, damage))


def test_files_that_are_no_states(engine, saved, tmp_path):
    data = saved.read_bytes()
    for name, content in {
        "empty": b"",
        "cut": data[: len(data) // 2],
        "header": data[:40],
        "noise": np.random.default_rng(0).bytes(4096),
        "huge": (2**62).to_bytes(8, "little") + b"{}",
        "deep": (20_008).to_bytes(8, "little") + b"[" * 20_008,
    }.items():
        path = tmp_path / f"{name}.pvc"
        path.write_bytes(content)
        with pytest.raises(MediaError, match="no visual state"):
            engine.load_state(path)
    save_file({"x": torch.zeros(1)}, tmp_path / "other.pvc")
    with pytest.raises(MediaError, match="no visual state that"):
        engine.load_state(tmp_path / "other.pvc")
    with pytest.raises(MediaError, match="no such file"):
        engine.load_state(tmp_path / "nowhere.pvc")


def test_every_byte_of_the_header_may_be_damaged(engine, saved):
    """Fuzzed: whatever the header says, it is refused as a PVCError or says what the file holds."""
    data = bytearray(saved.read_bytes())
    rng = np.random.default_rng(1)
    length = int.from_bytes(data[:8], "little")
    for _ in range(150):
        copy = bytearray(data)
        for place in rng.integers(0, 8 + length, 3):
            copy[int(place)] = int(rng.integers(256))
        saved.write_bytes(copy)
        try:
            engine.load_state(saved)
        except PVCError:
            continue


def test_a_state_is_written_whole_or_not_at_all(engine, saved, monkeypatch):
    before = saved.read_bytes()

    def fails(*args, **kwargs):
        raise OSError("disk full")

    monkeypatch.setattr("pvc.engine.visual_state.os.fsync", fails)
    with pytest.raises(OSError, match="disk full"):
        engine.encode_state(video(9)).save(saved)
    assert saved.read_bytes() == before
    with pytest.raises(UsageError, match=r"ends in \.pvc"):
        engine.encode_state(video(9)).save(saved.with_suffix(".safetensors"))


def test_still_frames_are_stored_once(engine, monkeypatch):
    """Equal neighbours share the layers below the first temporal one, and the tokens are those of every frame alone."""
    moving = video(11, 4)
    still = Video(moving.frames[[0, 0, 0, 1, 2, 2, 3]], tuple(float(second) for second in range(7)))
    rows = []
    tower = engine.model.model.vision_tower
    hook = tower.encoder.layer[0].register_forward_hook(lambda module, args, output: rows.append(len(args[0])))
    shared = engine.encode([still])[0].tokens
    hook.remove()
    assert rows == [4]
    pixels = engine.processor.video_processor([still], do_sample_frames=False, return_tensors="pt")
    with torch.inference_mode():
        each, _ = engine.model.model.encode_clips(pixels["pixel_values_videos"], frames=[7])
    assert (shared - each[0].flatten(0, 1)).abs().max() <= 1e-5 * shared.abs().max()
