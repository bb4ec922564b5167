"""Chat completions: responses have OpenAI's form, and the answers are those of the engine."""

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.server.conftest import chat_body, data_url, media_content

EXAMPLES = Path(__file__).parents[2] / "examples"
QUESTIONS = [
    ("sign.png", "what does the sign say?"),
    ("chart.png", "which bar is the tallest?"),
    ("shapes.mp4", "which way does the red circle move?"),
    ("digits.mp4", "which digits are shown?"),
]


def post(client, body, **options):
    return client.post("/v1/chat/completions", json=body, **options)


@pytest.mark.parametrize(("name", "question"), QUESTIONS)
def test_answers_are_the_engines(client, engine, name, question):
    expected = engine.chat().ask(question, media=[EXAMPLES / name])
    response = post(client, chat_body(media_content(EXAMPLES / name, question))).json()
    assert response["choices"][0]["message"]["content"] == expected.text
    assert response["choices"][0]["finish_reason"] == "stop"
    assert response["usage"]["prompt_tokens"] == expected.prompt_tokens
    assert response["usage"]["completion_tokens"] == expected.completion_tokens
    (medium,) = response["pvc"]["media"]
    assert medium["tokens"] == expected.visual_tokens
    assert medium["timestamps"] == [round(time, 3) for time in expected.media[0].timestamps]
    assert {"queue_s", "encode_s", "prefill_s", "total_s"} <= response["pvc"]["timing"].keys()


def test_many_at_once_are_answered_as_one_by_one(client, engine):
    jobs = [(EXAMPLES / name, question) for name, question in QUESTIONS] * 3
    expected = [engine.chat().ask(question, media=[path]).text for path, question in jobs]
    with ThreadPoolExecutor(8) as pool:
        responses = list(pool.map(lambda job: post(client, chat_body(media_content(*job))).json(), jobs))
    assert [response["choices"][0]["message"]["content"] for response in responses] == expected


def test_turns_and_systems(client, engine):
    chat = engine.chat("be brief")
    first = chat.ask("what does the sign say?", media=[EXAMPLES / "sign.png"]).text
    messages = [
        {"role": "system", "content": "be brief"},
        {"role": "user", "content": media_content(EXAMPLES / "sign.png")},
        {"role": "assistant", "content": first},
        {"role": "user", "content": "what colour is it?"},
    ]
    response = post(client, {"messages": messages}).json()
    assert response["pvc"]["media"][0]["cached"] is True
    assert isinstance(response["choices"][0]["message"]["content"], str)


def events(response):
    lines = [line[6:] for line in response.text.splitlines() if line.startswith("data: ")]
    assert lines[-1] == "[DONE]"
    return [json.loads(line) for line in lines[:-1]]


def test_a_stream_has_the_same_answer(client):
    body = chat_body(media_content(EXAMPLES / "digits.mp4", "which digits are shown?"))
    whole = post(client, body).json()
    chunks = events(post(client, {**body, "stream": True, "stream_options": {"include_usage": True}}))
    text = "".join(choice["delta"].get("content") or "" for chunk in chunks for choice in chunk["choices"])
    assert text == whole["choices"][0]["message"]["content"]
    assert chunks[-1]["usage"] == whole["usage"]
    assert chunks[-1]["pvc"]["visual_tokens"] == whole["pvc"]["visual_tokens"]
    assert [chunk["choices"][0]["finish_reason"] for chunk in chunks if chunk["choices"]][-1] == "stop"
    assert {chunk["object"] for chunk in chunks} == {"chat.completion.chunk"}
    assert len({chunk["id"] for chunk in chunks}) == 1


def test_sampling_choices_and_logprobs(client):
    body = chat_body(
        media_content(EXAMPLES / "sign.png"), n=3, temperature=1.5, seed=7, logprobs=True, top_logprobs=3, max_tokens=6
    )
    first, second = (post(client, body).json() for _ in range(2))
    assert [choice["message"] for choice in first["choices"]] == [choice["message"] for choice in second["choices"]]
    assert [choice["index"] for choice in first["choices"]] == [0, 1, 2]
    content = first["choices"][0]["logprobs"]["content"]
    assert all(len(token["top_logprobs"]) == 3 and token["logprob"] <= 0 for token in content)
    cut = post(client, chat_body("tell me everything", max_tokens=1)).json()
    assert cut["choices"][0]["finish_reason"] in ("length", "stop")
    assert cut["usage"]["completion_tokens"] == 1


def test_media_options_are_followed(client):
    steps = post(client, chat_body(media_content(EXAMPLES / "sign.png"), pvc={"image_steps": 1, "max_tiles": 1})).json()
    assert (steps["pvc"]["media"][0]["steps"], steps["pvc"]["media"][0]["tiles"]) == (1, 1)
    frames = post(client, chat_body(media_content(EXAMPLES / "digits.mp4", "which?"), pvc={"frames": 3})).json()
    assert frames["pvc"]["media"][0]["frames"] == 3


def test_visual_cache_keys_differ():
    from pvc.engine.options import MediaOptions
    from pvc.server.visual_cache import VisualCache

    key = VisualCache.compute_key("a", b"x", "image", MediaOptions())
    others = [
        VisualCache.compute_key("b", b"x", "image", MediaOptions()),
        VisualCache.compute_key("a", b"y", "image", MediaOptions()),
        VisualCache.compute_key("a", b"x", "video", MediaOptions()),
        VisualCache.compute_key("a", b"x", "image", MediaOptions(image_steps=1)),
    ]
    assert len({key, *others}) == 5


def test_the_visual_cache_is_bounded():
    import torch

    from pvc.engine.encode import EncodedMedia
    from pvc.server.visual_cache import VisualCache

    cache = VisualCache(1000)
    for number in range(5):
        cache.put(str(number), EncodedMedia("image", "x", torch.zeros(100)))
        assert cache.nbytes <= 1000
        assert cache.get("0") is not None
    assert cache.get("1") is None and cache.get("4") is not None
    tokens = torch.randn(300, 64)
    large_cache = VisualCache(10**6)
    large_cache.put("x", EncodedMedia("image", "x", tokens))
    copy = large_cache.get("x").tokens
    assert torch.equal(copy, tokens) and copy.data_ptr() != tokens.data_ptr()
    cache.put("large", EncodedMedia("image", "x", torch.zeros(1000)))
    assert cache.get("large") is None


def test_models_and_operations(client):
    (model,) = client.get("/v1/models").json()["data"]
    assert post(client, chat_body("hello", model=model["id"])).status_code == 200
    assert post(client, chat_body("hello", model="gpt-4")).json()["error"]["code"] == "model_not_found"
    assert client.get("/health").json() == {"status": "ok"}
    assert client.get("/ready").json() == {"status": "ready"}
    text = client.get("/metrics").text
    for name in ("pvc_requests_total", "pvc_tokens_total", "pvc_phase_seconds_bucket", "pvc_step_answers_bucket"):
        assert name in text
    assert 'route="/v1/chat/completions",status="200"' in text


def test_a_stream_has_no_chunk_without_choices_unless_requested(client):
    """Clients' loops read `chunk.choices[0]`."""
    chunks = events(post(client, chat_body(media_content(EXAMPLES / "sign.png"), stream=True, n=2)))
    assert all(len(chunk["choices"]) == 1 for chunk in chunks)
    assert [("pvc" in chunk) for chunk in chunks] == [False] * (len(chunks) - 1) + [True]
    assert chunks[-1]["pvc"]["visual_tokens"] > 0 and chunks[-1]["choices"][0]["finish_reason"]


def test_neutral_fields_change_nothing(client):
    body = chat_body("hello", max_tokens=1)
    plain = post(client, body).json()["choices"]
    neutral = {
        "response_format": {"type": "text"},
        "store": False,
        "metadata": {"a": "b"},
        "parallel_tool_calls": True,
        "service_tier": "auto",
        "logit_bias": {},
        "tools": [],
        "tool_choice": "none",
        "modalities": ["text"],
        "user": "me",
        "frequency_penalty": 0,
        "presence_penalty": 0.0,
        "top_k": -1,
        "anything": None,
        "seed": -5,
    }
    assert post(client, {**body, **neutral}).json()["choices"] == plain
    nulls = dict.fromkeys(("stream", "n", "temperature", "top_p", "stop", "max_tokens", "logprobs", "pvc"))
    assert post(client, {**nulls, **body}).json()["choices"] == plain


def test_an_answer_can_be_sent_back(client):
    """Clients send back the whole message, with all fields that this server or another one has added."""
    body = chat_body(media_content(EXAMPLES / "sign.png"))
    message = post(client, body).json()["choices"][0]["message"]
    more = {"tool_calls": None, "function_call": None, "annotations": [], "audio": None}
    turns = [*body["messages"], {**message, **more}, {"role": "user", "content": "what colour is it?"}]
    response = post(client, {"messages": turns})
    assert response.status_code == 200, response.text
    turns[1] = {"role": "assistant", "content": None, "tool_calls": []}
    assert post(client, {"messages": turns}).status_code == 200


def test_low_detail_is_one_tile(client):
    content = media_content(EXAMPLES / "chart.png")
    high = post(client, chat_body(content)).json()["pvc"]["media"][0]
    content[0]["image_url"]["detail"] = "low"
    medium = post(client, chat_body(content)).json()["pvc"]["media"][0]
    assert medium["tiles"] == 1 < high["tiles"] and medium["tokens"] < high["tokens"]


def test_the_official_client(server):
    import openai

    address, _ = server
    client = openai.OpenAI(base_url=f"{address}/v1", api_key="none", max_retries=0)
    assert [model.id for model in client.models.list()] == ["pvc-nano"]
    assert client.models.retrieve("pvc-nano").id == "pvc-nano"
    content = [
        {"type": "image_url", "image_url": {"url": data_url(EXAMPLES / "sign.png")}},
        {"type": "text", "text": "What does it say?"},
    ]
    messages = [{"role": "user", "content": content}]
    whole = client.chat.completions.create(model="pvc-nano", messages=messages)
    assert whole.choices[0].message.content == "42"
    pieces = client.chat.completions.create(
        model="pvc-nano", messages=messages, stream=True, stream_options={"include_usage": True}
    )
    chunks = list(pieces)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == "42"
    assert chunks[-1].usage.total_tokens == whole.usage.total_tokens
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(model="pvc-nano", messages=messages, temperature=9)
    assert caught.value.code == "invalid_request"
    stream = client.chat.completions.create(model="pvc-nano", messages=messages, stream=True)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in stream) == "42"
    turns = [*messages, whole.choices[0].message, {"role": "user", "content": "what colour is it?"}]
    assert client.chat.completions.create(model="pvc-nano", messages=turns).choices[0].message.role == "assistant"
    with_options = client.chat.completions.create(
        model="pvc-nano", messages=messages, extra_body={"pvc": {"image_steps": 1, "max_tiles": 1}}
    )
    assert with_options.pvc["media"][0]["steps"] == 1
