"""Fields of other servers' requests, and the values of each that pass because they ask for nothing here.

Clients send many of them by default. Any other value would change the answer: it is refused, with the values that pass.
Names and defaults: `ChatCompletionRequest` of vLLM and of SGLang, the README of llama.cpp's server, Ollama's
`openai.go`, `CompletionCreateParams` of openai-python. Called by `schemas.py`, whose models have these as bases.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

from pydantic import BaseModel, ConfigDict, model_validator
from pydantic_core import PydanticCustomError

KINDS = {str: "string", bool: "boolean", int: "integer", float: "number", list: "array", dict: "object"}
SHOWN = 8  # names of fields in one message
SAFE_NAME = 40  # characters of a field's name that a message and the log repeat


class OneOf:
    """The values of an unsupported field that pass. Null always passes, and so does leaving the field out.

    Args:
        values: JSON values; 0 stands for 0.0 too, never for false.
        kinds: Python types of which every value passes.
        hint: what else a client can do.
    """

    def __init__(self, *values: Any, kinds: tuple[type, ...] = (), hint: str = "") -> None:
        self.values, self.kinds, self.hint = values, kinds, hint

    def passes(self, value: Any) -> bool:
        """Return whether `value` asks for nothing."""
        same = (one for one in self.values if isinstance(one, bool) == isinstance(value, bool))
        return type(value) in self.kinds or any(one == value for one in same)

    @property
    def text(self) -> str:
        """What a client can do, for a message."""
        choices = [_shown(value) for value in self.values] + [f"any {KINDS[kind]}" for kind in self.kinds]
        return "leave it out" + (f" or send {', '.join(choices)}" if choices else "") + self.hint

    def __get_pydantic_json_schema__(self, core: Any, handler: Any) -> dict[str, Any]:
        """Return the JSON schema that OpenAPI shows."""
        constants = [value for value in self.values if not isinstance(value, (list, dict)) or value]
        schema: list[dict[str, Any]] = [{"enum": constants}] if constants else []
        schema += [{"type": "array", "maxItems": 0} for value in self.values if value == []]
        schema += [{"type": "object", "maxProperties": 0} for value in self.values if value == {}]
        schema += [{"type": KINDS[kind]} for kind in self.kinds]
        return {"anyOf": [*schema, {"type": "null"}], "description": "Not supported: only values that ask for nothing."}


LABEL, OBJECT, FLAG = OneOf(kinds=(str,)), OneOf(kinds=(dict,)), OneOf(kinds=(bool,))
NUMBER = OneOf(kinds=(int, float))
NOTHING, OFF, ON, ZERO, ONE = OneOf(), OneOf(False), OneOf(True), OneOf(0), OneOf(1)
NO_LIST, NO_OBJECT, NO_TEXT = OneOf([]), OneOf({}), OneOf("")


@dataclass(frozen=True)
class _Refused:
    """One field that does not pass: its text for the client, and for the log without the client's value."""

    name: str
    text: str
    log: str


class StrictModel(BaseModel):
    """A part of a request: null is the default, and a field without a meaning here is refused, not ignored."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False, strict=False)
    called: ClassVar[str] = "this object"
    only: ClassVar[dict[str, OneOf]] = {}

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: Any) -> None:
        metadata = [(name, item) for name, field in cls.model_fields.items() for item in field.metadata]
        cls.only = {name: item for name, item in metadata if isinstance(item, OneOf)}

    @classmethod
    def simplified(cls, data: dict[str, Any]) -> dict[str, Any]:
        """Return `data` without what asks for nothing because of another field."""
        return data

    @model_validator(mode="before")
    @classmethod
    def _without_what_asks_for_nothing(cls, data: Any) -> Any:
        if not isinstance(data, dict):
            return data
        data = cls.simplified({name: value for name, value in data.items() if value is not None})
        refused = [
            _Refused(
                name,
                f"{name}: {_shown(data[name])} is not supported here; {only.text}",
                f"{name}: not supported",
            )
            for name, only in cls.only.items()
            if name in data and not only.passes(data[name])
        ]
        unknown = [_name(name) for name in data if name not in cls.model_fields]
        if unknown:
            listed = ", ".join(unknown[:SHOWN]) + (f" and {len(unknown) - SHOWN} more" if len(unknown) > SHOWN else "")
            text = f"{listed}: not a field of {cls.called} on this server"
            refused.insert(0, _Refused(unknown[0], text, text))
        if refused:
            field = refused[0].name if len(refused) == 1 and len(unknown) < 2 else ""
            text, log = ("; ".join(getattr(one, key) for one in refused) for key in ("text", "log"))
            raise PydanticCustomError("refused", "{text}", {"text": text, "log": log, "field": field})
        return {name: value for name, value in data.items() if name not in cls.only}


def _name(name: Any) -> str:
    """Return a client's name for a field as ASCII: it may be half a surrogate pair, which no response can hold."""
    return str(name)[:SAFE_NAME].encode("ascii", "backslashreplace").decode()


def _shown(value: Any) -> str:
    """Return a JSON value as text, or its kind and size where that would be long."""
    if isinstance(value, (list, dict)):
        items = [*value, *value.values()] if isinstance(value, dict) else value
        if len(value) > 2 or any(isinstance(item, (list, dict)) or len(str(item)) > SAFE_NAME for item in items):
            return f"{'a list' if isinstance(value, list) else 'an object'} of {len(value)}"
        return json.dumps(value)
    return json.dumps(value[:SAFE_NAME] if isinstance(value, str) else value)[: SAFE_NAME + 2]


class OpenAIFields(StrictModel):
    """Fields of OpenAI's chat completions."""

    audio: Annotated[Any, NOTHING] = None
    frequency_penalty: Annotated[Any, ZERO] = None
    function_call: Annotated[Any, OneOf("none", "auto")] = None
    functions: Annotated[Any, OneOf([], hint=', or function_call "none" with it')] = None
    logit_bias: Annotated[Any, OneOf({}, [])] = None
    metadata: Annotated[Any, OBJECT] = None
    modalities: Annotated[Any, OneOf(["text"])] = None
    moderation: Annotated[Any, NOTHING] = None
    parallel_tool_calls: Annotated[Any, FLAG] = None
    prediction: Annotated[Any, OBJECT] = None  # a hint for speed
    presence_penalty: Annotated[Any, ZERO] = None
    prompt_cache_key: Annotated[Any, LABEL] = None
    prompt_cache_options: Annotated[Any, OBJECT] = None
    prompt_cache_retention: Annotated[Any, LABEL] = None
    reasoning_effort: Annotated[Any, OneOf("none", "minimal", "low", "medium")] = None
    response_format: Annotated[Any, OneOf({"type": "text"})] = None
    safety_identifier: Annotated[Any, LABEL] = None
    service_tier: Annotated[Any, OneOf("auto", "default")] = None
    store: Annotated[Any, OFF] = None
    tool_choice: Annotated[Any, OneOf("none", "auto")] = None
    tools: Annotated[Any, OneOf([], hint=', or tool_choice "none" with it')] = None
    user: Annotated[Any, LABEL] = None
    verbosity: Annotated[Any, OneOf("medium")] = None
    web_search_options: Annotated[Any, NOTHING] = None


class VLLMFields(StrictModel):
    """Fields of vLLM's server, older ones included, many of them SGLang's and LMDeploy's too."""

    add_generation_prompt: Annotated[Any, ON] = None
    add_special_tokens: Annotated[Any, OFF] = None
    allowed_token_ids: Annotated[Any, NOTHING] = None
    bad_words: Annotated[Any, NO_LIST] = None
    best_of: Annotated[Any, ONE] = None
    chat_template: Annotated[Any, NOTHING] = None
    continue_final_message: Annotated[Any, OFF] = None
    documents: Annotated[Any, NO_LIST] = None
    echo: Annotated[Any, OFF] = None
    ec_transfer_params: Annotated[Any, NOTHING] = None
    guided_choice: Annotated[Any, NOTHING] = None
    guided_decoding_backend: Annotated[Any, LABEL] = None
    guided_grammar: Annotated[Any, NOTHING] = None
    guided_json: Annotated[Any, NOTHING] = None
    guided_json_object: Annotated[Any, OFF] = None
    guided_regex: Annotated[Any, NOTHING] = None
    guided_whitespace_pattern: Annotated[Any, NOTHING] = None
    include_reasoning: Annotated[Any, FLAG] = None  # there is no reasoning
    include_stop_str_in_output: Annotated[Any, OFF] = None
    kv_transfer_params: Annotated[Any, NOTHING] = None
    length_penalty: Annotated[Any, ONE] = None  # of beam search
    logits_processors: Annotated[Any, NO_LIST] = None
    logprob_token_ids: Annotated[Any, NOTHING] = None
    min_p: Annotated[Any, ZERO] = None
    min_tokens: Annotated[Any, ZERO] = None
    priority: Annotated[Any, ZERO] = None
    prompt_logprobs: Annotated[Any, NOTHING] = None
    repetition_detection: Annotated[Any, NOTHING] = None
    repetition_penalty: Annotated[Any, ONE] = None
    request_id: Annotated[Any, LABEL] = None
    return_mm_kwargs: Annotated[Any, FLAG] = None  # of vLLM's render endpoint
    return_prompt_text: Annotated[Any, OFF] = None
    return_token_ids: Annotated[Any, OFF] = None
    return_token_offsets: Annotated[Any, OFF] = None
    return_tokens_as_token_ids: Annotated[Any, OFF] = None
    routed_experts_prompt_start: Annotated[Any, ZERO] = None
    session_id: Annotated[Any, OneOf(kinds=(str, int))] = None
    skip_special_tokens: Annotated[Any, ON] = None
    spaces_between_special_tokens: Annotated[Any, FLAG] = None  # special tokens are skipped
    stop_token_ids: Annotated[Any, NO_LIST] = None
    stream_interval: Annotated[Any, ONE] = None
    structural_tag: Annotated[Any, NOTHING] = None
    structured_outputs: Annotated[Any, NOTHING] = None
    thinking_token_budget: Annotated[Any, NOTHING] = None
    top_k: Annotated[Any, OneOf(-1, 0, 1)] = None  # 1 is greedy: `ChatRequest.simplified`
    truncate_prompt_tokens: Annotated[Any, NOTHING] = None
    truncation_side: Annotated[Any, OneOf("left", "right")] = None  # of no meaning without truncate_prompt_tokens
    use_beam_search: Annotated[Any, OFF] = None
    vllm_xargs: Annotated[Any, NO_OBJECT] = None
    watermarking: Annotated[Any, OFF] = None


class SGLangFields(StrictModel):
    """Fields of SGLang's server that vLLM's has not."""

    bootstrap_host: Annotated[Any, NOTHING] = None
    bootstrap_port: Annotated[Any, NOTHING] = None
    bootstrap_room: Annotated[Any, NOTHING] = None
    custom_logit_processor: Annotated[Any, NOTHING] = None
    custom_params: Annotated[Any, NOTHING] = None
    data_parallel_rank: Annotated[Any, NOTHING] = None
    disagg_prefill_dp_rank: Annotated[Any, NOTHING] = None
    ebnf: Annotated[Any, NOTHING] = None
    images_config: Annotated[Any, NO_OBJECT] = None
    input_ids: Annotated[Any, NOTHING] = None
    lora_path: Annotated[Any, NOTHING] = None
    max_dynamic_patch: Annotated[Any, NOTHING] = None
    min_dynamic_patch: Annotated[Any, NOTHING] = None
    ngram_corpus_id: Annotated[Any, NOTHING] = None
    no_stop_trim: Annotated[Any, OFF] = None
    regex: Annotated[Any, NOTHING] = None
    return_cached_tokens_details: Annotated[Any, OFF] = None
    return_flat_raw_output_top_logprobs: Annotated[Any, OFF] = None
    return_hidden_states: Annotated[Any, OFF] = None
    return_input_ids_in_sglext: Annotated[Any, OFF] = None
    return_meta_info: Annotated[Any, OFF] = None
    return_output_ids_in_sglext: Annotated[Any, OFF] = None
    return_prompt_token_ids: Annotated[Any, OFF] = None
    return_routed_experts: Annotated[Any, OFF] = None
    return_sampling_mask: Annotated[Any, OFF] = None
    return_spec_tokens_details: Annotated[Any, OFF] = None
    rid: Annotated[Any, LABEL] = None
    routed_dp_rank: Annotated[Any, NOTHING] = None
    routed_experts_start_len: Annotated[Any, ZERO] = None
    sampling_logprobs_mode: Annotated[Any, NOTHING] = None
    separate_reasoning: Annotated[Any, FLAG] = None
    session_params: Annotated[Any, NO_OBJECT] = None
    stop_regex: Annotated[Any, NO_LIST] = None
    stream_reasoning: Annotated[Any, FLAG] = None
    task: Annotated[Any, NOTHING] = None
    use_audio_in_video: Annotated[Any, OFF] = None
    video_config: Annotated[Any, NO_OBJECT] = None
    watermark: Annotated[Any, NOTHING] = None


class LlamaCppFields(StrictModel):
    """Fields of llama.cpp's server. Parameters of a sampler that is off pass with any value."""

    backend_sampling: Annotated[Any, FLAG] = None  # where tokens are sampled
    cache_prompt: Annotated[Any, FLAG] = None  # a hint for speed
    dry_allowed_length: Annotated[Any, NUMBER] = None
    dry_base: Annotated[Any, NUMBER] = None
    dry_multiplier: Annotated[Any, ZERO] = None
    dry_penalty_last_n: Annotated[Any, NUMBER] = None
    dry_sequence_breakers: Annotated[Any, OneOf(kinds=(list,))] = None
    dynatemp_exponent: Annotated[Any, NUMBER] = None
    dynatemp_range: Annotated[Any, ZERO] = None
    grammar: Annotated[Any, NO_TEXT] = None
    id_slot: Annotated[Any, OneOf(-1)] = None
    json_schema: Annotated[Any, NOTHING] = None
    lora: Annotated[Any, NO_LIST] = None
    min_keep: Annotated[Any, ZERO] = None
    mirostat: Annotated[Any, ZERO] = None
    mirostat_eta: Annotated[Any, NUMBER] = None
    mirostat_tau: Annotated[Any, NUMBER] = None
    n_cache_reuse: Annotated[Any, ZERO] = None
    n_cmpl: Annotated[Any, ONE] = None
    n_discard: Annotated[Any, ZERO] = None
    n_indent: Annotated[Any, ZERO] = None
    n_keep: Annotated[Any, NUMBER] = None  # a conversation is never shifted out of the context
    n_probs: Annotated[Any, ZERO] = None
    parse_tool_calls: Annotated[Any, FLAG] = None
    post_sampling_probs: Annotated[Any, OFF] = None
    reasoning_format: Annotated[Any, OneOf("none", "auto")] = None
    repeat_last_n: Annotated[Any, NUMBER] = None
    repeat_penalty: Annotated[Any, ONE] = None
    response_fields: Annotated[Any, NO_LIST] = None
    return_progress: Annotated[Any, FLAG] = None  # more to read in the response, never another answer
    return_tokens: Annotated[Any, OFF] = None
    samplers: Annotated[Any, NO_LIST] = None
    sse_ping_interval: Annotated[Any, NUMBER] = None
    t_max_predict_ms: Annotated[Any, ZERO] = None
    thinking_forced_open: Annotated[Any, OFF] = None
    timings_per_token: Annotated[Any, FLAG] = None  # as return_progress; `pvc.timing` has the times
    top_n_sigma: Annotated[Any, OneOf(-1)] = None
    typ_p: Annotated[Any, ONE] = None
    typical_p: Annotated[Any, ONE] = None
    xtc_probability: Annotated[Any, ZERO] = None
    xtc_threshold: Annotated[Any, NUMBER] = None


class GatewayFields(StrictModel):
    """Fields of Ollama, OpenRouter, LiteLLM, DashScope, DeepSeek and Mistral."""

    adapter_name: Annotated[Any, NOTHING] = None
    enable_search: Annotated[Any, OFF] = None
    enable_thinking: Annotated[Any, OFF] = None
    format: Annotated[Any, NO_TEXT] = None
    keep_alive: Annotated[Any, OneOf(kinds=(str, int, float))] = None
    options: Annotated[Any, NO_OBJECT] = None
    prompt_mode: Annotated[Any, NOTHING] = None
    provider: Annotated[Any, NO_OBJECT] = None
    reasoning: Annotated[Any, OneOf({}, {"effort": "none"}, {"enabled": False}, {"exclude": True})] = None
    safe_prompt: Annotated[Any, OFF] = None
    think: Annotated[Any, OFF] = None
    thinking: Annotated[Any, OneOf(False, {"type": "disabled"})] = None
    thinking_budget: Annotated[Any, ZERO] = None
    transforms: Annotated[Any, NO_LIST] = None
    usage: Annotated[Any, OneOf({"include": True}, {"include": False})] = None  # a response always has its usage


class RequestFields(OpenAIFields, VLLMFields, SGLangFields, LlamaCppFields, GatewayFields):
    """All of them."""

    called: ClassVar[str] = "a request"


class MessageFields(StrictModel):
    """Fields of a message, as a client sends back what a server answered."""

    called: ClassVar[str] = "a message"
    annotations: Annotated[Any, NO_LIST] = None
    audio: Annotated[Any, NOTHING] = None
    function_call: Annotated[Any, NOTHING] = None
    images: Annotated[Any, NO_LIST] = None
    partial: Annotated[Any, OFF] = None
    prefix: Annotated[Any, OFF] = None
    reasoning: Annotated[Any, NO_TEXT] = None
    reasoning_content: Annotated[Any, NO_TEXT] = None
    reasoning_details: Annotated[Any, NO_LIST] = None
    refusal: Annotated[Any, NO_TEXT] = None
    thinking: Annotated[Any, NO_TEXT] = None
    tool_call_id: Annotated[Any, NO_TEXT] = None
    tool_calls: Annotated[Any, NO_LIST] = None


class PartFields(StrictModel):
    """Fields of a part of a message."""

    called: ClassVar[str] = "such a part"
    annotations: Annotated[Any, NO_LIST] = None
    cache_control: Annotated[Any, OBJECT] = None
    modalities: Annotated[Any, OneOf("image", "video")] = None
    uuid: Annotated[Any, LABEL] = None  # a name for vLLM's cache; ours is by the bytes


class AddressFields(StrictModel):
    """Fields of `image_url` and `video_url`."""

    called: ClassVar[str] = "such an address"
    content_hash: Annotated[Any, LABEL] = None
    format: Annotated[Any, LABEL] = None  # the bytes say it
    max_dynamic_patch: Annotated[Any, NOTHING] = None
    min_dynamic_patch: Annotated[Any, NOTHING] = None


class StreamOptionsFields(StrictModel):
    """Fields of `stream_options`."""

    called: ClassVar[str] = "stream_options"
    include_obfuscation: Annotated[Any, FLAG] = None


class TemplateOptions(StrictModel):
    """`chat_template_kwargs`: a template has no variables here, so only what turns something off passes."""

    called: ClassVar[str] = "chat_template_kwargs"
    add_generation_prompt: Annotated[Any, ON] = None
    continue_final_message: Annotated[Any, OFF] = None
    add_vision_id: Annotated[Any, OFF] = None
    enable_thinking: Annotated[Any, OFF] = None
    reasoning_effort: Annotated[Any, OneOf("none", "minimal", "low", "medium")] = None
    thinking: Annotated[Any, OFF] = None


__all__ = [
    "FLAG",
    "LABEL",
    "NO_OBJECT",
    "OFF",
    "ONE",
    "AddressFields",
    "MessageFields",
    "OneOf",
    "PartFields",
    "RequestFields",
    "StreamOptionsFields",
    "StrictModel",
    "TemplateOptions",
]
