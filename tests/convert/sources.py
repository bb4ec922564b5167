"""Tiny InternVL checkpoints with random weights, in every format that can be converted, built without PVC code."""

import json
from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import AutoConfig, AutoModelForCausalLM, InternVLConfig, InternVLForConditionalGeneration

from pvc.processing.tokenizer import build_tokenizer
from pvc.testing import randomize

WORDS = ["what does it say? which shape is red? user\nassistant\nsystem\n"] * 4
VISION = {
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "image_size": 32,
    "patch_size": 4,
    "attention_bias": True,
}
TEXT = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 48,
}


def _tokenizer(directory, without=()):
    tokenizer = build_tokenizer(WORDS, vocab_size=300)
    tokenizer.save_pretrained(directory)
    path = directory / "tokenizer.json"
    data = json.loads(path.read_text())
    data["added_tokens"] = [token for token in data["added_tokens"] if token["content"] not in without]
    for token in without:
        data["model"]["vocab"].pop(token, None)
    # Numbers without gaps, as a tokenizer that never had these tokens.
    order = sorted(data["model"]["vocab"], key=data["model"]["vocab"].get)
    data["model"]["vocab"] = {token: number for number, token in enumerate(order)}
    for token in data["added_tokens"]:
        token["id"] = data["model"]["vocab"][token["content"]]
    path.write_text(json.dumps(data))
    settings = json.loads((directory / "tokenizer_config.json").read_text())
    for name in list(settings):
        if name.endswith("image_token") or name in ("video_token", "start_token", "extra_special_tokens"):
            del settings[name]
    settings.pop("added_tokens_decoder", None)
    (directory / "tokenizer_config.json").write_text(json.dumps(settings))
    return len(order), {token["content"]: token["id"] for token in data["added_tokens"]}


def transformers_format(directory: Path, text="qwen2", tied=False, dtype=torch.float32, shard="5GB", vision=None):
    """Write a checkpoint as transformers writes `internvl`."""
    directory.mkdir(parents=True)
    size, ids = _tokenizer(directory)
    config = InternVLConfig(
        vision_config={**VISION, **(vision or {})},
        text_config={"model_type": text, **TEXT, "vocab_size": size, **({"head_dim": 8} if text == "qwen3" else {})},
        image_token_id=ids["<IMG_CONTEXT>"],
        downsample_ratio=0.5,
        image_seq_length=16,
        tie_word_embeddings=tied,
    )
    config.text_config.tie_word_embeddings = tied
    model = randomize(InternVLForConditionalGeneration(config)).to(dtype)
    model.tie_weights()
    model.save_pretrained(directory, max_shard_size=shard)
    return directory


def chat_format(directory: Path, text="qwen2", dtype=torch.float32):
    """Write the original format: `internvl_chat` with fused projections; its tokenizer has no `<video>`."""
    directory.mkdir(parents=True)
    size, _ = _tokenizer(directory, without=("<video>",))
    language = {**TEXT, "vocab_size": size, **({"head_dim": 8} if text == "qwen3" else {})}
    state = {**vision_state(), **projector_state()}
    model = randomize(AutoModelForCausalLM.from_config(AutoConfig.for_model(text, **language)), seed=5)
    state |= {f"language_model.{name}": tensor for name, tensor in model.state_dict().items()}
    write_chat(directory, state, {"model_type": text, **language}, dtype)
    return directory


def internlm2_format(directory: Path, vocabulary: int):
    """Write `internvl_chat` with InternLM2, whose tokenizer the caller writes; return the tensors."""
    language = {**TEXT, "vocab_size": vocabulary, "bias": False, "rope_theta": 1000000}
    language["rope_scaling"] = {"type": "dynamic", "factor": 2.0}
    state = {**vision_state(), **projector_state(), **internlm2_state(language)}
    write_chat(directory, state, {"model_type": "internlm2", **language}, torch.float32)
    return state


def write_chat(directory, state, language, dtype):
    given = {key: value for key, value in VISION.items() if key != "attention_bias"}
    given |= {"qkv_bias": True, "qk_normalization": False, "norm_type": "layer_norm", "model_type": "intern_vit_6b"}
    config = {
        "model_type": "internvl_chat",
        "architectures": ["InternVLChatModel"],
        "auto_map": {"AutoModel": "modeling_internvl_chat.InternVLChatModel"},
        "vision_config": given,
        "llm_config": {**language, "torch_dtype": "bfloat16", "use_cache": False, "transformers_version": "4.37.2"},
        "downsample_ratio": 0.5,
        "select_layer": -1,
        "ps_version": "v2",
        "force_image_size": VISION["image_size"],
        "max_dynamic_patch": 6,
        "min_dynamic_patch": 1,
        "template": "internvl2_5",
    }
    (directory / "config.json").write_text(json.dumps(config))
    save_file({name: tensor.to(dtype).contiguous() for name, tensor in state.items()}, directory / "model.safetensors")


def _random(seed):
    generator = torch.Generator().manual_seed(seed)
    return lambda *shape: 0.3 * torch.randn(*shape, generator=generator) / max(1, shape[-1] / 4) ** 0.5


def vision_state():
    draw, width, inner = _random(1), VISION["hidden_size"], VISION["intermediate_size"]
    patches = (VISION["image_size"] // VISION["patch_size"]) ** 2
    state = {
        "vision_model.embeddings.class_embedding": draw(1, 1, width),
        "vision_model.embeddings.position_embedding": draw(1, 1 + patches, width),
        "vision_model.embeddings.patch_embedding.weight": draw(width, 3, VISION["patch_size"], VISION["patch_size"]),
        "vision_model.embeddings.patch_embedding.bias": draw(width),
    }
    for layer in range(VISION["num_hidden_layers"]):
        name = f"vision_model.encoder.layers.{layer}"
        for norm in ("norm1", "norm2"):
            state |= {f"{name}.{norm}.weight": 1 + draw(width), f"{name}.{norm}.bias": draw(width)}
        state |= {f"{name}.attn.qkv.weight": 3 * draw(3 * width, width), f"{name}.attn.qkv.bias": draw(3 * width)}
        state |= {f"{name}.attn.proj.weight": draw(width, width), f"{name}.attn.proj.bias": draw(width)}
        state |= {f"{name}.mlp.fc1.weight": draw(inner, width), f"{name}.mlp.fc1.bias": draw(inner)}
        state |= {f"{name}.mlp.fc2.weight": draw(width, inner), f"{name}.mlp.fc2.bias": draw(width)}
        state |= {f"{name}.ls1": 1 + draw(width), f"{name}.ls2": 1 + draw(width)}
    return state


def projector_state():
    draw, wide, language = _random(2), 4 * VISION["hidden_size"], TEXT["hidden_size"]
    return {
        "mlp1.0.weight": 1 + draw(wide),
        "mlp1.0.bias": draw(wide),
        "mlp1.1.weight": 3 * draw(language, wide),
        "mlp1.1.bias": draw(language),
        "mlp1.3.weight": draw(language, language),
        "mlp1.3.bias": draw(language),
    }


def internlm2_state(language):
    draw, width, inner = _random(3), language["hidden_size"], language["intermediate_size"]
    size = width // language["num_attention_heads"]
    state = {
        "language_model.model.tok_embeddings.weight": draw(language["vocab_size"], width),
        "language_model.model.norm.weight": 1 + draw(width),
        "language_model.output.weight": draw(language["vocab_size"], width),
    }
    rows = (language["num_attention_heads"] + 2 * language["num_key_value_heads"]) * size
    for layer in range(language["num_hidden_layers"]):
        name = f"language_model.model.layers.{layer}"
        state |= {
            f"{name}.attention.wqkv.weight": 3 * draw(rows, width),
            f"{name}.attention.wo.weight": draw(width, width),
        }
        state |= {f"{name}.feed_forward.w{n}.weight": draw(inner, width) for n in (1, 3)}
        state |= {f"{name}.feed_forward.w2.weight": draw(width, inner)}
        state |= {f"{name}.attention_norm.weight": 1 + draw(width), f"{name}.ffn_norm.weight": 1 + draw(width)}
    return state
