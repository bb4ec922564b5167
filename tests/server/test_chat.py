"""Chat completions: what OpenAI's clients get, and that it is what the engine says."""

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.server.conftest import asked, data_url, shown

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
    told = post(client, asked(shown(EXAMPLES / name, question))).json()
    assert told["choices"][0]["message"]["content"] == expected.text
    assert told["choices"][0]["finish_reason"] == "stop"
    assert told["usage"]["prompt_tokens"] == expected.prompt_tokens
    assert told["usage"]["completion_tokens"] == expected.completion_tokens
    (medium,) = told["pvc"]["media"]
    assert medium["tokens"] == expected.visual_tokens
    assert medium["timestamps"] == [round(time, 3) for time in expected.media[0].timestamps]
    assert {"queue_s", "encode_s", "prefill_s", "total_s"} <= told["pvc"]["timing"].keys()


def test_many_at_once_are_answered_as_one_by_one(client, engine):
    jobs = [(EXAMPLES / name, question) for name, question in QUESTIONS] * 3
    expected = [engine.chat().ask(question, media=[path]).text for path, question in jobs]
    with ThreadPoolExecutor(8) as pool:
        told = list(pool.map(lambda job: post(client, asked(shown(*job))).json(), jobs))
    assert [one["choices"][0]["message"]["content"] for one in told] == expected


def test_turns_and_systems(client, engine):
    chat = engine.chat("be brief")
    first = chat.ask("what does the sign say?", media=[EXAMPLES / "sign.png"]).text
    messages = [
        {"role": "system", "content": "be brief"},
        {"role": "user", "content": shown(EXAMPLES / "sign.png")},
        {"role": "assistant", "content": first},
        {"role": "user", "content": "what colour is it?"},
    ]
    told = post(client, {"messages": messages}).json()
    assert told["pvc"]["media"][0]["cached"] is True
    assert isinstance(told["choices"][0]["message"]["content"], str)


def events(response):
    lines = [line[6:] for line in response.text.splitlines() if line.startswith("data: ")]
    assert lines[-1] == "[DONE]"
    return [json.loads(line) for line in lines[:-1]]


def test_a_stream_says_the_same(client):
    body = asked(shown(EXAMPLES / "digits.mp4", "which digits are shown?"))
    whole = post(client, body).json()
    told = events(post(client, {**body, "stream": True, "stream_options": {"include_usage": True}}))
    text = "".join(choice["delta"].get("content") or "" for one in told for choice in one["choices"])
    assert text == whole["choices"][0]["message"]["content"]
    assert told[-1]["usage"] == whole["usage"]
    assert told[-1]["pvc"]["visual_tokens"] == whole["pvc"]["visual_tokens"]
    assert [one["choices"][0]["finish_reason"] for one in told if one["choices"]][-1] == "stop"
    assert {one["object"] for one in told} == {"chat.completion.chunk"}
    assert len({one["id"] for one in told}) == 1


def test_sampling_choices_and_logprobs(client):
    body = asked(
        shown(EXAMPLES / "sign.png"), n=3, temperature=1.5, seed=7, logprobs=True, top_logprobs=3, max_tokens=6
    )
    one, two = (post(client, body).json() for _ in range(2))
    assert [choice["message"] for choice in one["choices"]] == [choice["message"] for choice in two["choices"]]
    assert [choice["index"] for choice in one["choices"]] == [0, 1, 2]
    content = one["choices"][0]["logprobs"]["content"]
    assert all(len(token["top_logprobs"]) == 3 and token["logprob"] <= 0 for token in content)
    cut = post(client, asked("tell me everything", max_tokens=1)).json()
    assert cut["choices"][0]["finish_reason"] in ("length", "stop")
    assert cut["usage"]["completion_tokens"] == 1


def test_wishes_are_followed(client):
    steps = post(client, asked(shown(EXAMPLES / "sign.png"), pvc={"image_steps": 1, "max_tiles": 1})).json()
    assert (steps["pvc"]["media"][0]["steps"], steps["pvc"]["media"][0]["tiles"]) == (1, 1)
    frames = post(client, asked(shown(EXAMPLES / "digits.mp4", "which?"), pvc={"frames": 3})).json()
    assert frames["pvc"]["media"][0]["frames"] == 3
    auto = post(client, asked(shown(EXAMPLES / "sign.png"), pvc={"image_steps": "auto"})).json()
    assert auto["pvc"]["media"][0]["steps"] in (1, 2, 4)


def test_the_cache_is_a_tenants_own():
    from pvc.engine.engine import MediaOptions
    from pvc.server.visual_cache import VisualCache

    one = VisualCache.key("a", b"x", "image", MediaOptions())
    others = [
        VisualCache.key("b", b"x", "image", MediaOptions()),
        VisualCache.key("a", b"y", "image", MediaOptions()),
        VisualCache.key("a", b"x", "video", MediaOptions()),
        VisualCache.key("a", b"x", "image", MediaOptions(image_steps=1)),
    ]
    assert len({one, *others}) == 5


def test_the_cache_is_bounded():
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
    own = VisualCache(10**6)
    own.put("x", EncodedMedia("image", "x", tokens))
    kept = own.get("x").tokens
    assert torch.equal(kept, tokens) and kept.data_ptr() != tokens.data_ptr()
    cache.put("large", EncodedMedia("image", "x", torch.zeros(1000)))
    assert cache.get("large") is None


def test_models_and_operations(client):
    (model,) = client.get("/v1/models").json()["data"]
    assert post(client, asked("hello", model=model["id"])).status_code == 200
    assert post(client, asked("hello", model="gpt-4")).json()["error"]["code"] == "model_not_found"
    assert client.get("/health").json() == {"status": "ok"}
    assert client.get("/ready").json() == {"status": "ready"}
    text = client.get("/metrics").text
    for name in ("pvc_requests_total", "pvc_tokens_total", "pvc_phase_seconds_bucket", "pvc_step_answers_bucket"):
        assert name in text
    assert 'route="/v1/chat/completions",status="200"' in text


def test_a_stream_has_no_chunk_without_choices_unless_asked(client):
    """`chunk.choices[0]` is what everybody's loop says."""
    told = events(post(client, asked(shown(EXAMPLES / "sign.png"), stream=True, n=2)))
    assert all(len(one["choices"]) == 1 for one in told)
    assert [("pvc" in one) for one in told] == [False] * (len(told) - 1) + [True]
    assert told[-1]["pvc"]["visual_tokens"] > 0 and told[-1]["choices"][0]["finish_reason"]


def test_what_clients_send_of_themselves(client):
    body = asked("hello", max_tokens=1)
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
    """As clients do: the whole message, with all that the server or another one put into it."""
    body = asked(shown(EXAMPLES / "sign.png"))
    said = post(client, body).json()["choices"][0]["message"]
    more = {"tool_calls": None, "function_call": None, "annotations": [], "audio": None}
    turns = [*body["messages"], {**said, **more}, {"role": "user", "content": "what colour is it?"}]
    told = post(client, {"messages": turns})
    assert told.status_code == 200, told.text
    turns[1] = {"role": "assistant", "content": None, "tool_calls": []}
    assert post(client, {"messages": turns}).status_code == 200


def test_low_detail_is_one_tile(client):
    low = shown(EXAMPLES / "chart.png")
    high = post(client, asked(low)).json()["pvc"]["media"][0]
    low[0]["image_url"]["detail"] = "low"
    told = post(client, asked(low)).json()["pvc"]["media"][0]
    assert told["tiles"] == 1 < high["tiles"] and told["tokens"] < high["tokens"]


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
    told = list(pieces)
    assert "".join(one.choices[0].delta.content or "" for one in told if one.choices) == "42"
    assert told[-1].usage.total_tokens == whole.usage.total_tokens
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(model="pvc-nano", messages=messages, temperature=9)
    assert caught.value.code == "invalid_request"
    loop = client.chat.completions.create(model="pvc-nano", messages=messages, stream=True)
    assert "".join(one.choices[0].delta.content or "" for one in loop) == "42"
    turns = [*messages, whole.choices[0].message, {"role": "user", "content": "what colour is it?"}]
    assert client.chat.completions.create(model="pvc-nano", messages=turns).choices[0].message.role == "assistant"
    wishes = client.chat.completions.create(
        model="pvc-nano", messages=messages, extra_body={"pvc": {"image_steps": 1, "max_tiles": 1}}
    )
    assert wishes.pvc["media"][0]["steps"] == 1
