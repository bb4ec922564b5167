"""Fields of a request that are followed: length of an answer, sampling, usage while streaming, frame sampling."""

import logging
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from pvc.server.app import create_app
from pvc.server.media_options import EVERY_FRAME_FPS
from pvc.server.schemas import ChatRequest
from pvc.server.settings import Settings
from tests.server.conftest import chat_body, media_content
from tests.server.test_chat import events, post

EXAMPLES = Path(__file__).parents[2] / "examples"
MAX_NEW_TOKENS = 64  # the fixture's max_new_tokens
CONTEXT = 4096  # the bundled model's


def video(**fields):
    return chat_body(media_content(EXAMPLES / "digits.mp4", "which digits are shown?"), max_tokens=1, **fields)


def frames(client, **fields):
    response = post(client, video(**fields))
    assert response.status_code == 200, response.text
    return response.json()["pvc"]["media"][0]["timestamps"]


@pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens", "n_predict"])
@pytest.mark.parametrize("count", [2048, 10**9, -1])
@pytest.mark.parametrize("stream", [False, True])
def test_a_request_for_more_tokens_gets_the_maximum(client, name, count, stream):
    body = chat_body("hello", ignore_eos=True, **{name: count})
    if stream:
        response = events(post(client, {**body, "stream": True, "stream_options": {"include_usage": True}}))
        usage, finish = response[-1]["usage"], response[-2]["choices"][0]["finish_reason"]
    else:
        completion = post(client, body).json()
        usage, finish = completion["usage"], completion["choices"][0]["finish_reason"]
    assert (usage["completion_tokens"], finish) == (MAX_NEW_TOKENS, "length")
    assert usage["total_tokens"] == usage["prompt_tokens"] + MAX_NEW_TOKENS


def test_an_answer_ends_where_the_context_does(client, engine):
    assert engine.model.config.text_config.max_position_embeddings == CONTEXT
    num_tokens = post(client, chat_body("x", max_tokens=1)).json()["usage"]["prompt_tokens"]
    words = " x" * (CONTEXT - num_tokens - 20)
    body = chat_body("x" + words, ignore_eos=True, max_tokens=2048)
    response = post(client, body).json()
    room = CONTEXT - response["usage"]["prompt_tokens"]
    assert 0 < room < MAX_NEW_TOKENS
    assert (response["usage"]["completion_tokens"], response["usage"]["total_tokens"]) == (room, CONTEXT)
    assert response["choices"][0]["finish_reason"] == "length"
    error = post(client, chat_body("x" + words + " x" * room, max_tokens=1)).json()["error"]
    assert error["code"] == "context_length_exceeded" and str(CONTEXT) in error["message"]


def test_an_answer_goes_on_after_its_end(client, engine):
    """The same tokens come first, then others. The end-of-turn token has no text."""
    body = chat_body(media_content(EXAMPLES / "sign.png"), logprobs=True)
    plain = post(client, {**body, "max_tokens": 8}).json()
    assert plain["choices"][0]["finish_reason"] == "stop"
    count = plain["usage"]["completion_tokens"]  # its last one is the end
    response = post(client, {**body, "max_tokens": count + 5, "ignore_eos": True}).json()
    assert response["usage"]["completion_tokens"] == count + 5
    assert response["choices"][0]["finish_reason"] == "length"
    tokens = response["choices"][0]["logprobs"]["content"]
    assert tokens[: count - 1] == plain["choices"][0]["logprobs"]["content"]
    assert tokens[count - 1]["token"] == engine.processor.tokenizer.eos_token
    assert len(tokens) == count + 5
    text = response["choices"][0]["message"]["content"]
    assert text.startswith(plain["choices"][0]["message"]["content"])
    assert engine.processor.tokenizer.eos_token not in text


def test_others_still_end_beside_one_that_goes_on(client):
    """Two answers in one batch, of which only one ignores its end."""
    from concurrent.futures import ThreadPoolExecutor

    bodies = [chat_body(media_content(EXAMPLES / "sign.png"), max_tokens=40, ignore_eos=flag) for flag in (True, False)]
    with ThreadPoolExecutor(2) as pool:
        on, off = (item.json() for item in pool.map(lambda body: post(client, body), bodies))
    assert on["usage"]["completion_tokens"] == 40 > off["usage"]["completion_tokens"]
    assert off["choices"][0]["finish_reason"] == "stop"


@pytest.mark.parametrize("greedy", [{"temperature": 1e-8}, {"temperature": 0.001}, {"top_p": 0}, {"top_k": 1}])
def test_a_very_low_temperature_is_greedy(client, greedy):
    body = chat_body(media_content(EXAMPLES / "chart.png", "which bar is the tallest?"))
    expected = post(client, body).json()["choices"]
    for seed in range(3):
        warm = {"temperature": 2.0, "seed": seed}
        assert post(client, {**body, **warm, **greedy}).json()["choices"] == expected


def test_usage_in_every_chunk(client):
    options = {"include_usage": True, "continuous_usage_stats": True}
    body = chat_body("tell me everything", n=2, temperature=1.5, seed=3, max_tokens=6, ignore_eos=True, stream=True)
    *chunks, last = events(post(client, {**body, "stream_options": options}))
    counts_by_index = {0: [], 1: []}
    for chunk in chunks:
        usage = chunk["usage"]
        assert usage["prompt_tokens"] == last["usage"]["prompt_tokens"]
        assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]
        counts_by_index[chunk["choices"][0]["index"]].append(usage["completion_tokens"])
    for counts in counts_by_index.values():
        assert counts == sorted(counts) and counts[-1] == 6
    assert last["usage"]["completion_tokens"] == 12 and last["choices"] == []
    without = events(post(client, {**body, "stream_options": {"include_usage": True}}))
    assert [chunk for chunk in without if "usage" in chunk] == without[-1:]


@pytest.mark.parametrize(
    ("fields", "same"),
    [
        ({"media_io_kwargs": {"video": {"num_frames": 5}}}, {"frames": 5}),
        ({"media_io_kwargs": {"video": {"num_frames": 5, "fps": -1, "video_backend": "opencv"}}}, {"frames": 5}),
        ({"media_io_kwargs": {"video": {"fps": 2}}}, {"fps": 2}),
        ({"media_io_kwargs": {"video": {"fps": 2, "num_frames": 100}}}, {"fps": 2}),
        ({"media_io_kwargs": {"video": {"num_frames": 5}, "image": {"image_mode": "RGB"}}}, {"frames": 5}),
        ({"mm_processor_kwargs": {"num_frames": 5, "do_sample_frames": True}}, {"frames": 5}),
        ({"mm_processor_kwargs": {"fps": 2.0}}, {"fps": 2}),
        # all frames are read, of which the processor takes five
        (
            {
                "media_io_kwargs": {"video": {"num_frames": -1}},
                "mm_processor_kwargs": {"num_frames": 5, "do_sample_frames": True},
            },
            {"frames": 5},
        ),
        ({"media_io_kwargs": {"video": {"num_frames": 5}}, "pvc": {"frames": 5}}, {"frames": 5}),
        ({"media_io_kwargs": {}, "mm_processor_kwargs": {}}, {}),
    ],
    ids=str,
)
def test_videos_are_sampled_as_vllms_clients_request(client, fields, same):
    assert frames(client, **fields) == frames(client, pvc=same)


def test_frames_up_to_a_number(client):
    every = frames(client, media_io_kwargs={"video": {"num_frames": -1}})
    assert len(every) > 10 and every == frames(client, pvc={"fps": 1000})
    few = frames(client, media_io_kwargs={"video": {"num_frames": 3, "fps": 1000}})
    assert len(few) == 3 and set(few) <= set(every)
    assert len(frames(client, mm_processor_kwargs={"max_frames": 4})) == 4
    assert ChatRequest(**video(media_io_kwargs={"video": {"num_frames": -1}})).preparation.fps == EVERY_FRAME_FPS


def test_pictures_follow_processor_options(client):
    def tiles(**fields):
        response = post(client, chat_body(media_content(EXAMPLES / "chart.png"), max_tokens=1, **fields)).json()["pvc"][
            "media"
        ][0]
        return response["tiles"], response["steps"]

    for name in ("max_patches", "max_dynamic_patch"):
        options = {name: 1, "image_steps": 2}
        assert tiles(mm_processor_kwargs=options) == tiles(pvc={"max_tiles": 1, "image_steps": 2}) == (1, 2)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"media_io_kwargs": {"video": {"num_frames": 129}}}, ("media_io_kwargs.video.num_frames: 129", "allows 128")),
        ({"mm_processor_kwargs": {"num_frames": 10**9}}, ("mm_processor_kwargs.num_frames: ", "allows 128")),
        ({"mm_processor_kwargs": {"max_patches": 13}}, ("mm_processor_kwargs.max_patches: 13", "allows 12")),
        ({"mm_processor_kwargs": {"image_steps": 5}}, ("mm_processor_kwargs.image_steps: 5", "allows 4")),
        ({"media_io_kwargs": {"video": {"num_frames": 0}}}, ("num_frames: must be at least 1",)),
        ({"media_io_kwargs": {"video": {"num_frames": 5}}, "pvc": {"frames": 4}}, ("disagree", "one of them")),
        ({"media_io_kwargs": {"video": {"fps": 5}}, "pvc": {"frames": 4}}, ("disagree",)),
        (
            {"mm_processor_kwargs": {"max_patches": 2}, "pvc": {"max_tiles": 3}},
            ("pvc.max_tiles is 3", "mm_processor_kwargs.max_patches is 2"),
        ),
    ],
    ids=str,
)
def test_invalid_media_options(client, fields, words):
    response = post(client, video(**fields))
    assert response.status_code == 400, response.text
    assert all(word in response.json()["error"]["message"] for word in words), response.text


def test_a_salt_separates_the_visual_cache(client):
    def cached(**fields):
        content = media_content(EXAMPLES / "sign.png", "salted?")
        response = post(client, chat_body(content, max_tokens=1, pvc={"image_steps": 1}, **fields))
        return response.json()["pvc"]["media"][0]["cached"]

    cached()
    assert cached() is True
    for fields in ({"cache_salt": "a"}, {"extra_key": "a"}, {"cache_salt": "b"}):
        assert [cached(**fields), cached(**fields)] == [False, True]


def test_the_log_has_the_reason_and_no_text_of_the_client(engine, caplog):
    caplog.set_level(logging.INFO, logger="pvc.server")
    with TestClient(create_app(engine, Settings(decoders=1))) as client:
        for change, why in [
            ({"top_k": 5}, "(top_k: not supported)"),
            ({"guided_json": {"secret": "secret"}}, "(guided_json: not supported)"),
            ({"response_format": {"type": "secret"}, "foo\nbar": 1}, "foo?bar: not a field of a request"),
            ({"n": 10}, "(n: 10 answers were asked for; this server allows 4.)"),
            ({"max_tokens": 0}, "(max_tokens: must be at least 1"),
            ({"stop": ["secret"] * 5}, "(stop: List should have at most 4 items"),
            ({"messages": [{"role": "secret", "content": "secret"}]}, "(messages.0.role: Input should be 'system'"),
            ({"temperature": "secret"}, "(temperature: Input should be a valid number"),
            ({"media_io_kwargs": {"video": {"num_frames": 999}}}, "(media_io_kwargs.video.num_frames: 999 frames"),
        ]:
            caplog.clear()
            response = post(client, {**chat_body("secret"), **change})
            assert response.status_code == 400, response.text
            (line,) = [record.getMessage() for record in caplog.records if record.name == "pvc.server"]
            assert " 400 " in line and response.headers["x-request-id"] in line
            assert why in line and "secret" not in line and "\n" not in line, line


def test_the_command_line_has_the_same_limit():
    import inspect

    from pvc.cli.serve import serve

    assert inspect.signature(serve).parameters["max_new_tokens"].default == Settings().max_new_tokens
