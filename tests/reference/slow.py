"""The method of docs/method.md as slow loops in float64, written from its formulas and independent of pvc.model.

The functions take a state dict and a configuration. They compute clips, steps and positions one at a time. Called by
tests/model/test_p10_reference.py.

T steps, N positions, D width, K tokens per frame, L language width, S frame size.
"""

import math

import torch


def linear(state, name, x):
    """Apply the linear layer `name`: `(..., in)` to `(..., out)`."""
    return x @ state[f"{name}.weight"].T + state[f"{name}.bias"]


def layer_norm(x, eps, weight=None, bias=None):
    """Normalise the last dimension, and scale and shift it if a weight and bias are passed."""
    mean = x.mean(-1, keepdim=True)
    variance = ((x - mean) ** 2).mean(-1, keepdim=True)
    normed = (x - mean) / torch.sqrt(variance + eps)
    return normed if weight is None else normed * weight + bias


def gelu(x):
    """Compute GELU with the error function."""
    return x * 0.5 * (1 + torch.erf(x / math.sqrt(2)))


def silu(x):
    """Compute SiLU."""
    return x / (1 + torch.exp(-x))


def timestep_vector(config, step, total):
    """Compute the sinusoid of a step of a clip with `total` steps: 256 values."""
    if config.timestep == "index":
        timestep = min(step, config.timestep_limit or step)
    else:
        timestep = step % config.timestep_period if config.timestep == "cyclic" else step / total
    angles = [config.timestep_scale * timestep * 10000 ** (-k / 128) for k in range(128)]
    return torch.tensor([math.cos(a) for a in angles] + [math.sin(a) for a in angles], dtype=torch.float64)


def timestep_embedding(state, config, step, total):
    """Compute the timestep embedding of a step of a clip with `total` steps: `(D,)`."""
    name = "model.vision_tower.timestep_embedding"
    return linear(
        state, f"{name}.linear_2", silu(linear(state, f"{name}.linear_1", timestep_vector(config, step, total)))
    )


def adaptive_norm(state, name, x, embedding, eps, groups=1):
    """Apply AdaLN to `(..., width)`; `groups` equal runs of channels are normalised separately."""
    scale, shift = linear(state, f"{name}.modulation", silu(embedding)).chunk(2)
    normed = torch.cat([layer_norm(part, eps) for part in x.chunk(groups, dim=-1)], dim=-1)
    return normed * (1 + scale) + shift


def spatial_attention(state, name, x, heads):
    """Attend over the positions of one step: `(N, D)` to the same shape."""
    positions, width = x.shape
    size = width // heads
    query, key, value = (linear(state, f"{name}.{p}_proj", x) for p in "qkv")
    output = torch.zeros_like(x)
    for head in range(heads):
        part = slice(head * size, (head + 1) * size)
        for i in range(positions):
            scores = torch.stack([query[i, part] @ key[j, part] for j in range(positions)]) / math.sqrt(size)
            weights = torch.exp(scores - scores.max())
            weights = weights / weights.sum()
            output[i, part] = sum(weights[j] * value[j, part] for j in range(positions))
    return linear(state, f"{name}.projection_layer", output)


def temporal_attention(state, name, history, heads, window):
    """Attend over time at one position.

    Args:
        state: the state dict.
        name: name of the attention layer.
        history: outputs of AdaLN at this position for steps 0 .. t, `(D,)` each.
        heads: number of heads.
        window: number of steps that a step sees, or None.

    Returns:
        The update of step t, `(D,)`.
    """
    visible = history[-window:] if window else history
    now = history[-1]
    size = now.shape[-1] // heads
    query = linear(state, f"{name}.q_proj", now)
    keys = [linear(state, f"{name}.k_proj", x) for x in visible]
    values = [linear(state, f"{name}.v_proj", x) for x in visible]
    output = torch.zeros_like(now)
    for head in range(heads):
        part = slice(head * size, (head + 1) * size)
        scores = torch.stack([query[part] @ key[part] for key in keys]) / math.sqrt(size)
        weights = torch.exp(scores - scores.max())
        weights = weights / weights.sum()
        output[part] = sum(weight * value[part] for weight, value in zip(weights, values, strict=True))
    return linear(state, f"{name}.projection_layer", output)


def spatial_layer(state, name, x, config):
    """Apply a layer of InternVL's tower to one step: `(N, D)` to the same shape."""
    eps = config.layer_norm_eps
    before = layer_norm(x, eps, state[f"{name}.layernorm_before.weight"], state[f"{name}.layernorm_before.bias"])
    attended = spatial_attention(state, f"{name}.attention", before, config.num_attention_heads)
    x = x + state[f"{name}.lambda_1"] * attended
    after = layer_norm(x, eps, state[f"{name}.layernorm_after.weight"], state[f"{name}.layernorm_after.bias"])
    mlp = linear(state, f"{name}.mlp.fc2", gelu(linear(state, f"{name}.mlp.fc1", after)))
    return x + state[f"{name}.lambda_2"] * mlp


def embed(state, config, frame):
    """Embed a frame `(3, S, S)` to `(N, D)`: the class token and the patches."""
    name = "model.vision_tower.embeddings"
    kernel = state[f"{name}.patch_embeddings.projection.weight"]
    bias = state[f"{name}.patch_embeddings.projection.bias"]
    patch, grid = config.patch_size[0], config.grid
    rows = [state[f"{name}.cls_token"][0, 0]]
    for y in range(grid):
        for x in range(grid):
            cut = frame[:, y * patch : (y + 1) * patch, x * patch : (x + 1) * patch]
            rows.append(torch.stack([(cut * kernel[channel]).sum() for channel in range(len(kernel))]) + bias)
    return torch.stack(rows) + state[f"{name}.position_embeddings"][0]


def compress(state, config, x, embedding):
    """Compress the hidden states of one step to visual tokens.

    A token has the patches of an r x r block in row order. With groups, these patches form that number of squares, and
    the patches of each square are consecutive.

    Args:
        state: the state dict.
        config: configuration of the model.
        x: `(1 + grid^2, D)` hidden states.
        embedding: `(D,)` timestep embedding.

    Returns:
        `(K, L)`.
    """
    grid, factor, groups = config.vision_config.grid, config.downsample_factor, config.compressor_norm_groups
    side = round(groups**0.5)
    inner = factor // side
    order = [
        (square_row * inner + i, square_column * inner + j)
        for square_row in range(side)
        for square_column in range(side)
        for i in range(inner)
        for j in range(inner)
    ]
    patches = x[1:].reshape(grid, grid, -1)
    tokens = []
    for top in range(0, grid, factor):
        for left in range(0, grid, factor):
            block = [patches[top + i, left + j] for i, j in order]
            tokens.append(torch.cat(block))
    name = "model.multi_modal_projector"
    normed = adaptive_norm(state, f"{name}.norm", torch.stack(tokens), embedding, 1e-5, groups)
    return linear(state, f"{name}.linear_2", gelu(linear(state, f"{name}.linear_1", normed)))


def encode_clip(state, config, frames, steps, first=0):
    """Encode a clip. A single frame is repeated before the first layer.

    Args:
        state: the state dict of the model.
        config: configuration of the model.
        frames: `(T, 3, S, S)` or `(1, 3, S, S)`.
        steps: number of steps T.
        first: number of the first step.

    Returns:
        `(T, K, L)`.
    """
    state = {key: value.double() for key, value in state.items()}
    vision = config.vision_config
    frames = [frames[t if len(frames) > 1 else 0].double() for t in range(steps)]
    hidden = [embed(state, vision, frame) for frame in frames]
    embeddings = [timestep_embedding(state, vision, first + t, steps) for t in range(steps)]
    for index in range(vision.num_hidden_layers):
        name = f"model.vision_tower.encoder.layer.{index}"
        if index >= vision.num_hidden_layers - vision.num_temporal_layers:
            normed = [
                adaptive_norm(state, f"{name}.temporal.norm", hidden[t], embeddings[t], vision.layer_norm_eps)
                for t in range(steps)
            ]
            hidden = [
                torch.stack(
                    [
                        hidden[t][n]
                        + temporal_attention(
                            state,
                            f"{name}.temporal.attention",
                            [normed[s][n] for s in range(t + 1)],
                            vision.num_attention_heads,
                            vision.temporal_window,
                        )
                        for n in range(len(hidden[t]))
                    ]
                )
                for t in range(steps)
            ]
        hidden = [spatial_layer(state, name, x, vision) for x in hidden]
    return torch.stack([compress(state, config, hidden[t], embeddings[t]) for t in range(steps)])


def raster(tokens, groups):
    """Order the tokens of one tile by the grid of the base model; a token of step t stands for block t.

    Args:
        tokens: `(T, K, L)`.
        groups: number of blocks of a visual token.

    Returns:
        `(T * K, L)`.
    """
    order = {1: [0], 4: [0, 3, 1, 2]}[groups]
    blocks, out = round(groups**0.5), round(tokens.shape[1] ** 0.5)
    side = out * blocks
    rows = []
    for start in range(0, len(tokens), groups):
        grid = [[None] * side for _ in range(side)]
        for step in range(start, min(start + groups, len(tokens))):
            row, column = divmod(order[step - start], blocks)
            for token in range(out * out):
                grid[token // out * blocks + row][token % out * blocks + column] = tokens[step, token]
        rows += [cell for line in grid for cell in line if cell is not None]
    return torch.stack(rows)
