"""Default requests of public clients are answered. Other fields are followed, or rejected by name.

The bodies come from the sources that are named with them.
"""

import json
from pathlib import Path

import pytest

from pvc.server.compat import RequestFields
from tests.server.conftest import chat_body, data_url
from tests.server.test_chat import post

EXAMPLES = Path(__file__).parents[2] / "examples"
TEXT = {"type": "text", "text": "what does it say?"}
PICTURE = {"type": "image_url", "image_url": {"url": data_url(EXAMPLES / "sign.png")}}
LOW = {"type": "image_url", "image_url": {"url": data_url(EXAMPLES / "sign.png"), "detail": "low"}}
VIDEO = {"type": "video_url", "video_url": {"url": data_url(EXAMPLES / "digits.mp4")}}
TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {}}}}

JSON = {"content-type": "application/json"}
CLIENTS = {
    # open-compass/VLMEvalKit, vlmeval/api/gpt.py: OpenAIWrapper
    "VLMEvalKit": {
        "messages": [{"role": "user", "content": [LOW, TEXT]}],
        "n": 1,
        "temperature": 0,
        "max_tokens": 2048,
    },
    # lmms-eval 0.7.3, lmms_eval/models/chat/openai.py
    "lmms-eval": {
        "messages": [{"role": "user", "content": [PICTURE, TEXT]}],
        "max_tokens": 1024,
        "temperature": 0,
    },
    # the same with pass_video_url and enable_thinking_kwarg
    "lmms-eval, videos by address": {
        "messages": [{"role": "user", "content": [VIDEO, TEXT]}],
        "max_tokens": 4096,
        "temperature": 0,
        "media_io_kwargs": {"video": {"num_frames": 10}},
        "chat_template_kwargs": {"enable_thinking": False},
    },
    # the same for models whose names look like OpenAI's later ones
    "lmms-eval, later names": {
        "messages": [{"role": "user", "content": [PICTURE, TEXT]}],
        "response_format": {"type": "text"},
        "max_completion_tokens": 5000,
    },
    # guidellm 0.8.1, guidellm/backends/openai/request_handlers.py
    "guidellm": {
        "messages": [{"role": "user", "content": [TEXT, PICTURE]}],
        "stream": True,
        "stream_options": {"include_usage": True, "continuous_usage_stats": True},
        "max_completion_tokens": 8,
        "stop": None,
        "ignore_eos": True,
    },
    # the same with tools, on a turn that expects none of them to be called
    "guidellm, tools": {
        "messages": [{"role": "user", "content": [TEXT]}],
        "stream": True,
        "stream_options": {"include_usage": True, "continuous_usage_stats": True},
        "max_completion_tokens": 8,
        "tools": [TOOL],
        "tool_choice": "none",
    },
    # sglang 0.5.23, sglang/benchmark/serving.py: --backend vllm-chat
    "sglang.bench_serving": {
        "messages": [{"role": "user", "content": [PICTURE, TEXT]}],
        "max_completion_tokens": 8,
        "stream": True,
        "temperature": 0.0,
        "ignore_eos": True,
    },
    # vllm-project/vllm, vllm/benchmarks/lib/endpoint_request_func.py: openai-chat
    "vllm bench serve": {
        "messages": [{"role": "user", "content": [TEXT, PICTURE]}],
        "max_completion_tokens": 8,
        "stream": True,
        "stream_options": {"include_usage": True},
        "ignore_eos": True,
    },
    # ragas 0.4.3, ragas/llms/base.py: InstructorModelArgs, and the LangChain wrapper
    "ragas": {
        "messages": [{"role": "user", "content": "hello"}],
        "temperature": 0.01,
        "top_p": 0.1,
        "max_tokens": 1024,
    },
    "ragas 0.1": {"messages": [{"role": "user", "content": "hello"}], "temperature": 1e-8, "n": 1, "stream": False},
    # langchain-openai 1.7.4, langchain_openai/chat_models/base.py
    "LangChain": {"messages": [{"content": "hello", "role": "user"}], "stream": False},
    "LangChain, streaming": {
        "messages": [{"content": "hello", "role": "user"}],
        "stream": True,
        "stream_options": {"include_usage": True},
    },
    # llama-index-llms-openai 0.8.3, llama_index/llms/openai/base.py (OpenAILike is a child of it)
    "LlamaIndex": {"messages": [{"role": "user", "content": "hello"}], "stream": False, "temperature": 0.1},
    # litellm 1.110.2, litellm/constants.py: what is null there is left out or sent as null
    "LiteLLM": {
        "messages": [{"role": "user", "content": "hello"}],
        **dict.fromkeys(
            [
                *("functions", "function_call", "temperature", "top_p", "n", "stream", "stream_options", "stop"),
                *("max_tokens", "max_completion_tokens", "modalities", "prediction", "audio", "presence_penalty"),
                *("frequency_penalty", "logit_bias", "user", "response_format", "seed", "tools", "tool_choice"),
                *("logprobs", "top_logprobs", "parallel_tool_calls", "reasoning_effort", "verbosity", "thinking"),
                *("web_search_options", "service_tier", "safety_identifier", "prompt_cache_key", "store", "metadata"),
                *("prompt_cache_retention", "context_management"),
            ]
        ),
    },
    # ggml-org/llama.cpp, tools/server/webui/src/lib/services/chat.service.ts and its chat store
    "llama.cpp's page": {
        "messages": [{"role": "user", "content": "hello", "tool_calls": None, "tool_call_id": None}],
        "stream": True,
        "return_progress": True,
        "reasoning_format": "auto",
        "timings_per_token": True,
        "max_tokens": -1,
        "backend_sampling": False,
    },
    # open-webui/open-webui, backend/open_webui/utils/payload.py
    "Open WebUI": {
        "messages": [{"role": "user", "content": [TEXT, PICTURE]}],
        "stream": True,
        "stream_options": {"include_usage": True},
        "temperature": 0.8,
        "top_p": 0.9,
        "max_tokens": 128,
        "frequency_penalty": 0.0,
        "seed": 0,
        "stop": [],
    },
    # an agent, in a turn without tool calls (vllm-project/vllm#9426)
    "an agent": {
        "messages": [{"role": "user", "content": "hello"}],
        "tools": [TOOL],
        "tool_choice": "none",
        "parallel_tool_calls": True,
        "store": False,
        "service_tier": "auto",
        "reasoning_effort": "minimal",
        "verbosity": "medium",
        "prompt_cache_key": "a",
        "safety_identifier": "b",
        "metadata": {"c": "d"},
        "user": "e",
    },
}
DEFAULTS = {
    # openai 3.57, openai/types/chat/completion_create_params.py: the values that its documentation gives as defaults
    "OpenAI": {
        "frequency_penalty": 0,
        "presence_penalty": 0.0,
        "logit_bias": {},
        "function_call": "none",
        "functions": [],
        "modalities": ["text"],
        "parallel_tool_calls": True,
        "reasoning_effort": "medium",
        "response_format": {"type": "text"},
        "service_tier": "auto",
        "store": False,
        "tool_choice": "auto",
        "tools": [],
        "verbosity": "medium",
        "prompt_cache_retention": "in_memory",
    },
    # vllm-project/vllm, vllm/entrypoints/openai/chat_completion/protocol.py: ChatCompletionRequest
    "vLLM": {
        "add_generation_prompt": True,
        "add_special_tokens": False,
        "allowed_token_ids": None,
        "bad_words": [],
        "cache_salt": None,
        "chat_template": None,
        "chat_template_kwargs": {},
        "continue_final_message": False,
        "documents": None,
        "echo": False,
        "ec_transfer_params": None,
        "ignore_eos": False,
        "include_reasoning": True,
        "include_stop_str_in_output": False,
        "kv_transfer_params": None,
        "length_penalty": 1.0,
        "logprob_token_ids": None,
        "logprobs": False,
        "media_io_kwargs": {},
        "min_p": 0.0,
        "min_tokens": 0,
        "mm_processor_kwargs": {},
        "n": 1,
        "parallel_tool_calls": True,
        "priority": 0,
        "prompt_logprobs": None,
        "reasoning_effort": "none",
        "repetition_detection": None,
        "repetition_penalty": 1.0,
        "request_id": "0123456789abcdef",
        "return_mm_kwargs": True,
        "return_prompt_text": False,
        "return_token_ids": False,
        "return_token_offsets": False,
        "return_tokens_as_token_ids": False,
        "routed_experts_prompt_start": 0,
        "session_id": None,
        "skip_special_tokens": True,
        "spaces_between_special_tokens": True,
        "stop": [],
        "stop_token_ids": [],
        "stream_interval": None,
        "structured_outputs": None,
        "thinking_token_budget": None,
        "tool_choice": "none",
        "top_k": 0,
        "top_logprobs": 0,
        "truncate_prompt_tokens": None,
        "use_beam_search": False,
        "vllm_xargs": None,
        # older versions
        "best_of": 1,
        "guided_choice": None,
        "guided_decoding_backend": None,
        "guided_grammar": None,
        "guided_json": None,
        "guided_regex": None,
        "guided_whitespace_pattern": None,
        "logits_processors": None,
        "structural_tag": None,
    },
    # sglang 0.5.23, sglang/srt/entrypoints/openai/protocol.py: ChatCompletionRequest
    "SGLang": {
        "continue_final_message": False,
        "custom_logit_processor": None,
        "custom_params": None,
        "ebnf": None,
        "frequency_penalty": 0.0,
        "ignore_eos": False,
        "images_config": None,
        "input_ids": None,
        "lora_path": None,
        "max_dynamic_patch": None,
        "min_p": 0.0,
        "min_tokens": 0,
        "no_stop_trim": False,
        "parallel_tool_calls": True,
        "regex": None,
        "repetition_penalty": 1.0,
        "return_cached_tokens_details": False,
        "return_hidden_states": False,
        "return_meta_info": False,
        "return_prompt_token_ids": False,
        "return_routed_experts": False,
        "return_sampling_mask": False,
        "return_spec_tokens_details": False,
        "return_token_ids": False,
        "rid": None,
        "routed_experts_start_len": 0,
        "separate_reasoning": True,
        "session_params": None,
        "skip_special_tokens": True,
        "stop_regex": None,
        "stop_token_ids": None,
        "stream_reasoning": True,
        "top_k": -1,
        "use_audio_in_video": False,
    },
    # ggml-org/llama.cpp, tools/server/README.md, with the samplers off that are on there by default
    "llama.cpp": {
        "cache_prompt": True,
        "dry_allowed_length": 2,
        "dry_base": 1.75,
        "dry_multiplier": 0.0,
        "dry_penalty_last_n": 64,
        "dry_sequence_breakers": ["\n", ":"],
        "dynatemp_exponent": 1.0,
        "dynatemp_range": 0.0,
        "id_slot": -1,
        "ignore_eos": False,
        "logit_bias": [],
        "min_keep": 0,
        "min_p": 0,
        "mirostat": 0,
        "mirostat_eta": 0.1,
        "mirostat_tau": 5.0,
        "n_cache_reuse": 0,
        "n_indent": 0,
        "n_keep": 0,
        "n_probs": 0,
        "post_sampling_probs": False,
        "repeat_last_n": 64,
        "repeat_penalty": 1,
        "response_fields": [],
        "return_progress": False,
        "return_tokens": False,
        "t_max_predict_ms": 0,
        "timings_per_token": False,
        "top_k": 0,
        "typical_p": 1.0,
        "xtc_probability": 0.0,
        "xtc_threshold": 0.1,
    },
    # ollama/ollama, openai/openai.go and docs/api.md; OpenRouter's, DashScope's and DeepSeek's switches
    "gateways": {
        "enable_thinking": False,
        "format": "",
        "keep_alive": "5m",
        "options": {},
        "reasoning": {"effort": "none"},
        "think": False,
        "thinking": {"type": "disabled"},
        "usage": {"include": True},
    },
}


@pytest.mark.parametrize("name", CLIENTS)
def test_default_requests_of_clients_are_answered(client, name):
    response = post(client, CLIENTS[name])
    assert response.status_code == 200, response.text
    if CLIENTS[name].get("stream"):
        assert "[DONE]" in response.text and "error" not in response.text
    else:
        assert response.json()["choices"][0]["finish_reason"] in ("stop", "length")


@pytest.mark.parametrize("name", DEFAULTS)
def test_defaults_of_other_servers_are_neutral(client, name):
    body = chat_body("hello", max_tokens=3)
    response = post(client, {**body, **DEFAULTS[name]})
    assert response.status_code == 200, response.text
    assert response.json()["choices"] == post(client, body).json()["choices"]


@pytest.mark.parametrize("name", sorted(RequestFields.unsupported))
def test_accepted_values_and_rejected_ones(client, name):
    """The OpenAPI schema lists the accepted values, too."""
    accepted = RequestFields.unsupported[name]
    values = [*accepted.values, *(kind() for kind in accepted.kinds), None]
    for value in values:
        response = post(client, chat_body("hello", max_tokens=1, **{name: value}))
        assert response.status_code == 200, (value, response.text)
    wrong = next(value for value in ({"x": [1]}, "no such", [[1]]) if not accepted.accepts(value))
    error = post(client, chat_body("hello", max_tokens=1, **{name: wrong}))
    assert error.status_code == 400
    error = error.json()["error"]
    assert error["param"] == name and error["message"].startswith(f"{name}: ")
    assert "is not supported here; leave it out" in error["message"]
    assert all(json.dumps(value) in error["message"] for value in accepted.values)
    schema = client.get("/openapi.json").json()["components"]["schemas"]["ChatRequest"]["properties"][name]
    assert schema["anyOf"][-1] == {"type": "null"}
    constants = [value for value in accepted.values if value not in ([], {})]
    assert [item["enum"] for item in schema["anyOf"] if "enum" in item] == ([constants] if constants else [])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"top_k": 5}, ("top_k: 5 is", "-1, 0, 1")),
        ({"frequency_penalty": 0.5}, ("frequency_penalty: 0.5 is", "send 0")),
        ({"frequency_penalty": False}, ("frequency_penalty: false is",)),
        ({"reasoning_effort": "high"}, ('"high"', '"minimal"')),
        ({"tools": [TOOL]}, ("tools: a list of 1", 'tool_choice "none"')),
        ({"tools": [TOOL], "tool_choice": "auto"}, ("tools: a list of 1",)),
        ({"response_format": {"type": "json_object"}}, ('{"type": "json_object"}', '{"type": "text"}')),
        ({"chat_template_kwargs": {"enable_thinking": True}}, ("chat_template_kwargs: enable_thinking: true",)),
        ({"mm_processor_kwargs": {"size": 1}}, ("size: not a field of mm_processor_kwargs",)),
        ({"\ud800": 1}, ("\\ud800: not a field of a request",)),
        ({"user": 3}, ("user: 3 is", "any string")),
        ({"stop": list("abcde")}, ("stop: ", "at most 4", "not 5")),
        ({"stop": 5}, ("stop: ", "list")),
        ({"pvc": {"image_steps": "many"}}, ("pvc.image_steps: ", "integer")),
        ({"max_tokens": 0}, ("max_tokens: ", "at least 1")),
        ({"stream_options": {"foo": 1}, "stream": True}, ("foo: not a field of stream_options",)),
    ],
    ids=str,
)
def test_rejected_fields_are_named_with_their_values(client, change, words):
    response = client.post("/v1/chat/completions", content=json.dumps({**chat_body("hello"), **change}), headers=JSON)
    assert response.status_code == 400, response.text
    message = response.json()["error"]["message"]
    assert all(word in message for word in words), message
