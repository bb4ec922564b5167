"""Train a tiny model on several processes that have different kinds of media at the same step; run under torchrun.

    python -m torch.distributed.run --nproc_per_node 2 -m tests.train.mixed_kinds ddp align OUT

The first process writes the mean loss of every step and the trained weights to OUT. With one process the batches of
both are gone through one after another, which is what two processes must equal.
"""

import json
import sys
from pathlib import Path

import torch
import torch.distributed as dist
from safetensors.torch import save_file

from pvc.testing import tiny_model, tiny_processor

# What each of two processes has at each step.
KINDS = [
    ("text", "image"),
    ("video", "text"),
    ("both", "image"),
    ("text", "text"),
    ("video", "both"),
    ("image", "text"),
]
NEW_PARTS = ("temporal", "timestep_embedding", "multi_modal_projector")


def batch(processor, kind, step):
    generator = torch.Generator().manual_seed(step)
    content = []
    if kind in ("image", "both"):
        pixels = torch.randint(0, 256, (32, 64, 3), generator=generator, dtype=torch.uint8).numpy()
        content.append({"type": "image", "image": pixels})
    if kind in ("video", "both"):
        frames = torch.randint(0, 256, (3, 32, 32, 3), generator=generator, dtype=torch.uint8).numpy()
        content.append({"type": "video", "video": frames})
    content.append({"type": "text", "text": f"what does it say in {step}?"})
    answer = {"role": "assistant", "content": [{"type": "text", "text": f"user {step}"}]}
    inputs = processor.apply_chat_template(
        [[{"role": "user", "content": content}, answer]],
        tokenize=True,
        return_assistant_tokens_mask=True,
        do_sample_frames=False,
    )
    mask = inputs.pop("assistant_masks")
    return {**inputs, "labels": inputs["input_ids"].masked_fill(mask == 0, -100)}


def wrapped(model, kind):
    if kind == "ddp":
        return torch.nn.parallel.DistributedDataParallel(model)
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    mesh = init_device_mesh("cpu", (dist.get_world_size(),))
    for layer in [*model.model.vision_tower.encoder.layer, *model.model.language_model.layers]:
        fully_shard(layer, mesh=mesh)
    # A unit of its own, as accelerate has it for tied weights: processes must then embed and encode in one order.
    fully_shard([model.get_input_embeddings(), model.lm_head], mesh=mesh)
    fully_shard(model, mesh=mesh)
    return model


def main(kind, trainable, out):
    dist.init_process_group("gloo")
    torch.set_num_threads(1)
    rank, processes = dist.get_rank(), dist.get_world_size()
    model = tiny_model(tie_word_embeddings=True).train()
    if trainable == "align":
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(any(part in name for part in NEW_PARTS))
    if trainable == "checkpointing":
        model.gradient_checkpointing_enable({"use_reentrant": False})
    processor = tiny_processor(model.config)
    training = wrapped(model, kind) if processes > 1 else model
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=1e-3)
    losses = []
    for step, kinds in enumerate(KINDS):
        shares = kinds if processes == 1 else (kinds[rank],)
        mean = torch.zeros(())
        for place, share in enumerate(shares):
            loss = training(**batch(processor, share, 10 * step + rank + place)).loss / len(shares)
            loss.backward()
            mean += loss.detach()
        if processes > 1:
            dist.all_reduce(mean)
            mean /= processes
        missing = [name for name, p in model.named_parameters() if p.requires_grad and p.grad is None]
        assert not missing, f"rank {rank}, step {step}: without gradients: {missing[:5]}"
        losses.append(mean.item())
        optimizer.step()
        optimizer.zero_grad()
    weights = {name: p.full_tensor() if hasattr(p, "full_tensor") else p for name, p in model.named_parameters()}
    if rank == 0:
        Path(out).mkdir(parents=True, exist_ok=True)
        (Path(out) / "losses.json").write_text(json.dumps(losses))
        save_file({name: value.detach().contiguous() for name, value in weights.items()}, Path(out) / "w.safetensors")
    dist.destroy_process_group()


if __name__ == "__main__":
    main(*sys.argv[1:])
