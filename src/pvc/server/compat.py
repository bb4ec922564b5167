"""Fields of other servers' requests that are not supported here, with the neutral values that are accepted.

A neutral value changes nothing here, and many clients send such values by default. Any other value would change the
answer, so it is rejected with a text that lists the accepted values. Names and defaults come from
`ChatCompletionRequest` of vLLM and of SGLang, the README of llama.cpp's server, Ollama's `openai.go` and
`CompletionCreateParams` of openai-python. `schemas.py` and `media_options.py` derive their models from these.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

from pydantic import BaseModel, ConfigDict, model_validator
from pydantic_core import PydanticCustomError

JSON_TYPE_NAMES = {str: "string", bool: "boolean", int: "integer", float: "number", list: "array", dict: "object"}
MAX_LISTED_FIELDS = 8  # in one message
MAX_NAME_LENGTH = 40  # characters of a field's name that a message and the log repeat


class OneOf:
    """The accepted values of an unsupported field. Null and a missing field are always accepted.

    Args:
        *values: JSON values; 0 also stands for 0.0, but not for false.
        kinds: Python types of which every value is accepted.
        hint: what else a client can do, for the message.
    """

    def __init__(self, *values: Any, kinds: tuple[type, ...] = (), hint: str = "") -> None:
        self.values, self.kinds, self.hint = values, kinds, hint

    def accepts(self, value: Any) -> bool:
        """Return whether a value is accepted."""
        comparable = (item for item in self.values if isinstance(item, bool) == isinstance(value, bool))
        return type(value) in self.kinds or any(item == value for item in comparable)

    @property
    def advice(self) -> str:
        """What a client can do, for a message."""
        choices = [_format_value(value) for value in self.values]
        choices += [f"any {JSON_TYPE_NAMES[kind]}" for kind in self.kinds]
        return "leave it out" + (f" or send {', '.join(choices)}" if choices else "") + self.hint

    def __get_pydantic_json_schema__(self, core: Any, handler: Any) -> dict[str, Any]:
        """Return the JSON schema of the field for OpenAPI."""
        constants = [value for value in self.values if not isinstance(value, (list, dict)) or value]
        schema: list[dict[str, Any]] = [{"enum": constants}] if constants else []
        schema += [{"type": "array", "maxItems": 0} for value in self.values if value == []]
        schema += [{"type": "object", "maxProperties": 0} for value in self.values if value == {}]
        schema += [{"type": JSON_TYPE_NAMES[kind]} for kind in self.kinds]
        return {"anyOf": [*schema, {"type": "null"}], "description": "Not supported: only values that ask for nothing."}


ANY_STRING, ANY_OBJECT, ANY_BOOL = OneOf(kinds=(str,)), OneOf(kinds=(dict,)), OneOf(kinds=(bool,))
ANY_NUMBER = OneOf(kinds=(int, float))
NULL, FALSE, TRUE, ZERO, ONE = OneOf(), OneOf(False), OneOf(True), OneOf(0), OneOf(1)
EMPTY_LIST, EMPTY_OBJECT, EMPTY_TEXT = OneOf([]), OneOf({}), OneOf("")


@dataclass(frozen=True)
class _RejectedField:
    """A rejected field.

    Attributes:
        name: name of the field.
        text: message for the client.
        log: message for the log, without the client's value.
    """

    name: str
    text: str
    log: str


class RequestModel(BaseModel):
    """Base of all objects in a request. Null stands for the default; an unknown field is rejected, not ignored.

    Attributes:
        display_name: name of the object in messages.
        unsupported: accepted values of every unsupported field, by its name.
    """

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False, strict=False)
    display_name: ClassVar[str] = "this object"
    unsupported: ClassVar[dict[str, OneOf]] = {}

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: Any) -> None:
        """Collect the unsupported fields of a subclass."""
        metadata = [(name, item) for name, field in cls.model_fields.items() for item in field.metadata]
        cls.unsupported = {name: item for name, item in metadata if isinstance(item, OneOf)}

    @classmethod
    def simplify(cls, data: dict[str, Any]) -> dict[str, Any]:
        """Return `data` without the values that another field makes neutral."""
        return data

    @model_validator(mode="before")
    @classmethod
    def _drop_neutral_fields(cls, data: Any) -> Any:
        if not isinstance(data, dict):
            return data
        data = cls.simplify({name: value for name, value in data.items() if value is not None})
        rejected = [
            _RejectedField(
                name,
                f"{name}: {_format_value(data[name])} is not supported here; {accepted.advice}",
                f"{name}: not supported",
            )
            for name, accepted in cls.unsupported.items()
            if name in data and not accepted.accepts(data[name])
        ]
        unknown = [_to_ascii_name(name) for name in data if name not in cls.model_fields]
        if unknown:
            num_more = len(unknown) - MAX_LISTED_FIELDS
            names = ", ".join(unknown[:MAX_LISTED_FIELDS]) + (f" and {num_more} more" if num_more > 0 else "")
            text = f"{names}: not a field of {cls.display_name} on this server"
            rejected.insert(0, _RejectedField(unknown[0], text, text))
        if rejected:
            field = rejected[0].name if len(rejected) == 1 and len(unknown) < 2 else ""
            text, log = ("; ".join(getattr(item, key) for item in rejected) for key in ("text", "log"))
            raise PydanticCustomError("refused", "{text}", {"text": text, "log": log, "field": field})
        return {name: value for name, value in data.items() if name not in cls.unsupported}


def _to_ascii_name(name: Any) -> str:
    """Return a client's field name as ASCII: a response cannot contain half of a surrogate pair."""
    return str(name)[:MAX_NAME_LENGTH].encode("ascii", "backslashreplace").decode()


def _format_value(value: Any) -> str:
    """Return a JSON value as text, or its kind and size if the text would be long."""
    if isinstance(value, (list, dict)):
        items = [*value, *value.values()] if isinstance(value, dict) else value
        if len(value) > 2 or any(isinstance(item, (list, dict)) or len(str(item)) > MAX_NAME_LENGTH for item in items):
            return f"{'a list' if isinstance(value, list) else 'an object'} of {len(value)}"
        return json.dumps(value)
    return json.dumps(value[:MAX_NAME_LENGTH] if isinstance(value, str) else value)[: MAX_NAME_LENGTH + 2]


class OpenAIFields(RequestModel):
    """Fields of OpenAI's chat completions."""

    audio: Annotated[Any, NULL] = None
    frequency_penalty: Annotated[Any, ZERO] = None
    function_call: Annotated[Any, OneOf("none", "auto")] = None
    functions: Annotated[Any, OneOf([], hint=', or function_call "none" with it')] = None
    logit_bias: Annotated[Any, OneOf({}, [])] = None
    metadata: Annotated[Any, ANY_OBJECT] = None
    modalities: Annotated[Any, OneOf(["text"])] = None
    moderation: Annotated[Any, NULL] = None
    parallel_tool_calls: Annotated[Any, ANY_BOOL] = None
    prediction: Annotated[Any, ANY_OBJECT] = None  # a hint for speed
    presence_penalty: Annotated[Any, ZERO] = None
    prompt_cache_key: Annotated[Any, ANY_STRING] = None
    prompt_cache_options: Annotated[Any, ANY_OBJECT] = None
    prompt_cache_retention: Annotated[Any, ANY_STRING] = None
    reasoning_effort: Annotated[Any, OneOf("none", "minimal", "low", "medium")] = None
    response_format: Annotated[Any, OneOf({"type": "text"})] = None
    safety_identifier: Annotated[Any, ANY_STRING] = None
    service_tier: Annotated[Any, OneOf("auto", "default")] = None
    store: Annotated[Any, FALSE] = None
    tool_choice: Annotated[Any, OneOf("none", "auto")] = None
    tools: Annotated[Any, OneOf([], hint=', or tool_choice "none" with it')] = None
    user: Annotated[Any, ANY_STRING] = None
    verbosity: Annotated[Any, OneOf("medium")] = None
    web_search_options: Annotated[Any, NULL] = None


class VLLMFields(RequestModel):
    """Fields of vLLM's server, including older ones. SGLang and LMDeploy have many of them too."""

    add_generation_prompt: Annotated[Any, TRUE] = None
    add_special_tokens: Annotated[Any, FALSE] = None
    allowed_token_ids: Annotated[Any, NULL] = None
    bad_words: Annotated[Any, EMPTY_LIST] = None
    best_of: Annotated[Any, ONE] = None
    chat_template: Annotated[Any, NULL] = None
    continue_final_message: Annotated[Any, FALSE] = None
    documents: Annotated[Any, EMPTY_LIST] = None
    echo: Annotated[Any, FALSE] = None
    ec_transfer_params: Annotated[Any, NULL] = None
    guided_choice: Annotated[Any, NULL] = None
    guided_decoding_backend: Annotated[Any, ANY_STRING] = None
    guided_grammar: Annotated[Any, NULL] = None
    guided_json: Annotated[Any, NULL] = None
    guided_json_object: Annotated[Any, FALSE] = None
    guided_regex: Annotated[Any, NULL] = None
    guided_whitespace_pattern: Annotated[Any, NULL] = None
    include_reasoning: Annotated[Any, ANY_BOOL] = None  # there is no reasoning
    include_stop_str_in_output: Annotated[Any, FALSE] = None
    kv_transfer_params: Annotated[Any, NULL] = None
    length_penalty: Annotated[Any, ONE] = None  # of beam search
    logits_processors: Annotated[Any, EMPTY_LIST] = None
    logprob_token_ids: Annotated[Any, NULL] = None
    min_p: Annotated[Any, ZERO] = None
    min_tokens: Annotated[Any, ZERO] = None
    priority: Annotated[Any, ZERO] = None
    prompt_logprobs: Annotated[Any, NULL] = None
    repetition_detection: Annotated[Any, NULL] = None
    repetition_penalty: Annotated[Any, ONE] = None
    request_id: Annotated[Any, ANY_STRING] = None
    return_mm_kwargs: Annotated[Any, ANY_BOOL] = None  # of vLLM's render endpoint
    return_prompt_text: Annotated[Any, FALSE] = None
    return_token_ids: Annotated[Any, FALSE] = None
    return_token_offsets: Annotated[Any, FALSE] = None
    return_tokens_as_token_ids: Annotated[Any, FALSE] = None
    routed_experts_prompt_start: Annotated[Any, ZERO] = None
    session_id: Annotated[Any, OneOf(kinds=(str, int))] = None
    skip_special_tokens: Annotated[Any, TRUE] = None
    spaces_between_special_tokens: Annotated[Any, ANY_BOOL] = None  # special tokens are skipped
    stop_token_ids: Annotated[Any, EMPTY_LIST] = None
    stream_interval: Annotated[Any, ONE] = None
    structural_tag: Annotated[Any, NULL] = None
    structured_outputs: Annotated[Any, NULL] = None
    thinking_token_budget: Annotated[Any, NULL] = None
    top_k: Annotated[Any, OneOf(-1, 0, 1)] = None  # 1 is greedy: see `ChatRequest.simplify`
    truncate_prompt_tokens: Annotated[Any, NULL] = None
    truncation_side: Annotated[Any, OneOf("left", "right")] = None  # has no effect without truncate_prompt_tokens
    use_beam_search: Annotated[Any, FALSE] = None
    vllm_xargs: Annotated[Any, EMPTY_OBJECT] = None
    watermarking: Annotated[Any, FALSE] = None


class SGLangFields(RequestModel):
    """Fields of SGLang's server that vLLM's server does not have."""

    bootstrap_host: Annotated[Any, NULL] = None
    bootstrap_port: Annotated[Any, NULL] = None
    bootstrap_room: Annotated[Any, NULL] = None
    custom_logit_processor: Annotated[Any, NULL] = None
    custom_params: Annotated[Any, NULL] = None
    data_parallel_rank: Annotated[Any, NULL] = None
    disagg_prefill_dp_rank: Annotated[Any, NULL] = None
    ebnf: Annotated[Any, NULL] = None
    images_config: Annotated[Any, EMPTY_OBJECT] = None
    input_ids: Annotated[Any, NULL] = None
    lora_path: Annotated[Any, NULL] = None
    max_dynamic_patch: Annotated[Any, NULL] = None
    min_dynamic_patch: Annotated[Any, NULL] = None
    ngram_corpus_id: Annotated[Any, NULL] = None
    no_stop_trim: Annotated[Any, FALSE] = None
    regex: Annotated[Any, NULL] = None
    return_cached_tokens_details: Annotated[Any, FALSE] = None
    return_flat_raw_output_top_logprobs: Annotated[Any, FALSE] = None
    return_hidden_states: Annotated[Any, FALSE] = None
    return_input_ids_in_sglext: Annotated[Any, FALSE] = None
    return_meta_info: Annotated[Any, FALSE] = None
    return_output_ids_in_sglext: Annotated[Any, FALSE] = None
    return_prompt_token_ids: Annotated[Any, FALSE] = None
    return_routed_experts: Annotated[Any, FALSE] = None
    return_sampling_mask: Annotated[Any, FALSE] = None
    return_spec_tokens_details: Annotated[Any, FALSE] = None
    rid: Annotated[Any, ANY_STRING] = None
    routed_dp_rank: Annotated[Any, NULL] = None
    routed_experts_start_len: Annotated[Any, ZERO] = None
    sampling_logprobs_mode: Annotated[Any, NULL] = None
    separate_reasoning: Annotated[Any, ANY_BOOL] = None
    session_params: Annotated[Any, EMPTY_OBJECT] = None
    stop_regex: Annotated[Any, EMPTY_LIST] = None
    stream_reasoning: Annotated[Any, ANY_BOOL] = None
    task: Annotated[Any, NULL] = None
    use_audio_in_video: Annotated[Any, FALSE] = None
    video_config: Annotated[Any, EMPTY_OBJECT] = None
    watermark: Annotated[Any, NULL] = None


class LlamaCppFields(RequestModel):
    """Fields of llama.cpp's server. Parameters of a sampler that is off are accepted with any value."""

    backend_sampling: Annotated[Any, ANY_BOOL] = None  # where tokens are sampled
    cache_prompt: Annotated[Any, ANY_BOOL] = None  # a hint for speed
    dry_allowed_length: Annotated[Any, ANY_NUMBER] = None
    dry_base: Annotated[Any, ANY_NUMBER] = None
    dry_multiplier: Annotated[Any, ZERO] = None
    dry_penalty_last_n: Annotated[Any, ANY_NUMBER] = None
    dry_sequence_breakers: Annotated[Any, OneOf(kinds=(list,))] = None
    dynatemp_exponent: Annotated[Any, ANY_NUMBER] = None
    dynatemp_range: Annotated[Any, ZERO] = None
    grammar: Annotated[Any, EMPTY_TEXT] = None
    id_slot: Annotated[Any, OneOf(-1)] = None
    json_schema: Annotated[Any, NULL] = None
    lora: Annotated[Any, EMPTY_LIST] = None
    min_keep: Annotated[Any, ZERO] = None
    mirostat: Annotated[Any, ZERO] = None
    mirostat_eta: Annotated[Any, ANY_NUMBER] = None
    mirostat_tau: Annotated[Any, ANY_NUMBER] = None
    n_cache_reuse: Annotated[Any, ZERO] = None
    n_cmpl: Annotated[Any, ONE] = None
    n_discard: Annotated[Any, ZERO] = None
    n_indent: Annotated[Any, ZERO] = None
    n_keep: Annotated[Any, ANY_NUMBER] = None  # the context is never shifted here
    n_probs: Annotated[Any, ZERO] = None
    parse_tool_calls: Annotated[Any, ANY_BOOL] = None
    post_sampling_probs: Annotated[Any, FALSE] = None
    reasoning_format: Annotated[Any, OneOf("none", "auto")] = None
    repeat_last_n: Annotated[Any, ANY_NUMBER] = None
    repeat_penalty: Annotated[Any, ONE] = None
    response_fields: Annotated[Any, EMPTY_LIST] = None
    return_progress: Annotated[Any, ANY_BOOL] = None  # adds to the response; does not change the answer
    return_tokens: Annotated[Any, FALSE] = None
    samplers: Annotated[Any, EMPTY_LIST] = None
    sse_ping_interval: Annotated[Any, ANY_NUMBER] = None
    t_max_predict_ms: Annotated[Any, ZERO] = None
    thinking_forced_open: Annotated[Any, FALSE] = None
    timings_per_token: Annotated[Any, ANY_BOOL] = None  # like return_progress; the times are in `pvc.timing`
    top_n_sigma: Annotated[Any, OneOf(-1)] = None
    typ_p: Annotated[Any, ONE] = None
    typical_p: Annotated[Any, ONE] = None
    xtc_probability: Annotated[Any, ZERO] = None
    xtc_threshold: Annotated[Any, ANY_NUMBER] = None


class GatewayFields(RequestModel):
    """Fields of Ollama, OpenRouter, LiteLLM, DashScope, DeepSeek and Mistral."""

    adapter_name: Annotated[Any, NULL] = None
    enable_search: Annotated[Any, FALSE] = None
    enable_thinking: Annotated[Any, FALSE] = None
    format: Annotated[Any, EMPTY_TEXT] = None
    keep_alive: Annotated[Any, OneOf(kinds=(str, int, float))] = None
    options: Annotated[Any, EMPTY_OBJECT] = None
    prompt_mode: Annotated[Any, NULL] = None
    provider: Annotated[Any, EMPTY_OBJECT] = None
    reasoning: Annotated[Any, OneOf({}, {"effort": "none"}, {"enabled": False}, {"exclude": True})] = None
    safe_prompt: Annotated[Any, FALSE] = None
    think: Annotated[Any, FALSE] = None
    thinking: Annotated[Any, OneOf(False, {"type": "disabled"})] = None
    thinking_budget: Annotated[Any, ZERO] = None
    transforms: Annotated[Any, EMPTY_LIST] = None
    usage: Annotated[Any, OneOf({"include": True}, {"include": False})] = None  # every response has the usage


class RequestFields(OpenAIFields, VLLMFields, SGLangFields, LlamaCppFields, GatewayFields):
    """Unsupported fields of a chat request, of all these servers."""

    display_name: ClassVar[str] = "a request"


class MessageFields(RequestModel):
    """Unsupported fields of a message. Clients send them when they send back the answer of a server."""

    display_name: ClassVar[str] = "a message"
    annotations: Annotated[Any, EMPTY_LIST] = None
    audio: Annotated[Any, NULL] = None
    function_call: Annotated[Any, NULL] = None
    images: Annotated[Any, EMPTY_LIST] = None
    partial: Annotated[Any, FALSE] = None
    prefix: Annotated[Any, FALSE] = None
    reasoning: Annotated[Any, EMPTY_TEXT] = None
    reasoning_content: Annotated[Any, EMPTY_TEXT] = None
    reasoning_details: Annotated[Any, EMPTY_LIST] = None
    refusal: Annotated[Any, EMPTY_TEXT] = None
    thinking: Annotated[Any, EMPTY_TEXT] = None
    tool_call_id: Annotated[Any, EMPTY_TEXT] = None
    tool_calls: Annotated[Any, EMPTY_LIST] = None


class PartFields(RequestModel):
    """Unsupported fields of a part of a message."""

    display_name: ClassVar[str] = "such a part"
    annotations: Annotated[Any, EMPTY_LIST] = None
    cache_control: Annotated[Any, ANY_OBJECT] = None
    modalities: Annotated[Any, OneOf("image", "video")] = None
    uuid: Annotated[Any, ANY_STRING] = None  # key of vLLM's cache; here the key is computed from the bytes


class MediaUrlFields(RequestModel):
    """Unsupported fields of `image_url` and `video_url`."""

    display_name: ClassVar[str] = "such an address"
    content_hash: Annotated[Any, ANY_STRING] = None
    format: Annotated[Any, ANY_STRING] = None  # detected from the bytes
    max_dynamic_patch: Annotated[Any, NULL] = None
    min_dynamic_patch: Annotated[Any, NULL] = None


class StreamOptionsFields(RequestModel):
    """Unsupported fields of `stream_options`."""

    display_name: ClassVar[str] = "stream_options"
    include_obfuscation: Annotated[Any, ANY_BOOL] = None


class TemplateOptions(RequestModel):
    """`chat_template_kwargs`. Templates have no variables here, so only values that turn something off are accepted."""

    display_name: ClassVar[str] = "chat_template_kwargs"
    add_generation_prompt: Annotated[Any, TRUE] = None
    continue_final_message: Annotated[Any, FALSE] = None
    add_vision_id: Annotated[Any, FALSE] = None
    enable_thinking: Annotated[Any, FALSE] = None
    reasoning_effort: Annotated[Any, OneOf("none", "minimal", "low", "medium")] = None
    thinking: Annotated[Any, FALSE] = None


__all__ = [
    "ANY_BOOL",
    "ANY_STRING",
    "EMPTY_OBJECT",
    "FALSE",
    "ONE",
    "MediaUrlFields",
    "MessageFields",
    "OneOf",
    "PartFields",
    "RequestFields",
    "RequestModel",
    "StreamOptionsFields",
    "TemplateOptions",
]
