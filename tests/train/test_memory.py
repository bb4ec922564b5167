"""What a stage is said to take, against what is really kept."""

import copy

import pytest
import torch

from pvc.cli.main import main
from pvc.train.data.collate import ChatCollator
from pvc.train.data.mixture import StageDataset
from pvc.train.memory import stage_memory
from pvc.train.model_init import build_model, build_processor
from pvc.train.recipe import Recipe
from pvc.train.trainer import answer_positions
from tests.train.test_run import TINY


def recipe(**changes):
    stage = {**copy.deepcopy(TINY["stages"][1]), "tasks": {"match": 1}, "video_frames": {3: 1}, **changes}
    return Recipe.model_validate({**TINY, "stages": [stage]})


def really_kept(made, processor):
    """Bytes of the storages that a real forward pass leaves behind, and of the gradient of its logits."""
    stage = made.stages[0]
    model = build_model(made, stage, processor).train()
    if stage.checkpointing:
        model.activation_checkpointing_enable({"use_reentrant": False})
    samples = StageDataset(stage, 0, 32, 4)
    batch = ChatCollator(processor, stage.pack)([samples[place] for place in range(stage.batch_size)])
    known = {parameter.data_ptr() for parameter in model.parameters()}
    found, alive = {}, []

    def keep(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in known:
            found[storage.data_ptr()] = storage.nbytes()
            alive.append(storage)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        places, targets, _ = answer_positions(batch.pop("labels"))
        logits = model(**batch, use_cache=False, logits_to_keep=places).logits.float()
        torch.nn.functional.cross_entropy(logits.flatten(0, 1), targets.clamp(min=0).flatten())
    return sum(found.values()) + logits.numel() * 4, batch["input_ids"].numel()


@pytest.mark.parametrize(
    "changes", [{}, {"pack": 300}, {"checkpointing": True}], ids=["padded", "packed", "checkpointed"]
)
def test_activations_are_what_is_really_kept(changes):
    made = recipe(**changes)
    processor = build_processor(made)
    told = stage_memory(made, made.stages[0], processor, look=1, bf16=False)
    kept, tokens = really_kept(made, processor)
    assert told.tokens == tokens
    assert told.activations == pytest.approx(kept, rel=0.1)


def test_weights_gradients_and_moments():
    made = recipe()
    processor = build_processor(made)
    model = build_model(made, made.stages[0], processor)
    count = sum(parameter.numel() for parameter in model.parameters())
    told = stage_memory(made, made.stages[0], processor)
    assert (told.parameters, told.trained) == (count, count)
    assert told.total == 16 * count + told.activations
    frozen = recipe(trained=["temporal", "multi_modal_projector"])
    less = stage_memory(frozen, frozen.stages[0], processor)
    own = [p.numel() for n, p in model.named_parameters() if "temporal" in n or "multi_modal_projector" in n]
    assert (less.trained, less.weights) == (sum(own), 4 * count)
    halved = stage_memory(made.model_copy(), made.stages[0], processor, bf16=True)
    assert halved.activations < stage_memory(made, made.stages[0], processor, bf16=False).activations


def test_it_is_told_before_anything_runs(tmp_path, capsys):
    import yaml

    (tmp_path / "r.yaml").write_text(yaml.safe_dump(TINY))
    assert main(["train", str(tmp_path / "r.yaml"), "--dry-run"]) == 0
    out = capsys.readouterr().out
    assert "r.yaml: ok, 2 stages: patches, pvc" in out
    assert "pvc: " in out and "MiB: weights" in out and "spread over 8" in out
