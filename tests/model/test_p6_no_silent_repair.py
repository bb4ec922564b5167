"""P6: a mismatch of placeholders, frames, tokens or clips is an error that names both numbers."""

import pytest
import torch

from pvc.errors import MismatchError, UsageError
from tests.model.helpers import frames

IMAGE, VIDEO = 5, 6  # placeholder ids of the tiny tokenizer


def ids(*counts, token=IMAGE):
    """Build one row of ids for each count of placeholders."""
    longest = max(counts) + 2
    return torch.tensor([[20] * (longest - count - 1) + [token] * count + [21] for count in counts])


@pytest.fixture(autouse=True)
def _ids_fit(tiny):
    assert (tiny.config.image_token_id, tiny.config.video_token_id) == (IMAGE, VIDEO)


def test_p6_too_few_and_too_many_placeholders(tiny):
    for count in (3, 5):
        with pytest.raises(MismatchError, match=f"{count} image placeholders.*4 visual tokens"):
            tiny(input_ids=ids(count), pixel_values=frames(1))
        with pytest.raises(MismatchError, match=f"{count} video placeholders.*4 visual tokens"):
            tiny(input_ids=ids(count, token=VIDEO), pixel_values_videos=frames(4))


def test_p6_right_total_in_the_wrong_rows(tiny):
    """Four and four visual tokens for rows of three and five: the total agrees, the rows do not."""
    with pytest.raises(MismatchError, match="row 0.*3 image placeholders.*4, 4"):
        tiny(input_ids=ids(3, 5), pixel_values=frames(2))


def test_p6_placeholders_without_media(tiny):
    with pytest.raises(MismatchError, match="4 image placeholders, but 0 images"):
        tiny(input_ids=ids(4))
    with pytest.raises(MismatchError, match="4 video placeholders, but 0 videos"):
        tiny(input_ids=ids(4, token=VIDEO))


def test_p6_media_without_placeholders(tiny):
    with pytest.raises(MismatchError, match="0 image placeholders.*4 visual tokens"):
        tiny(input_ids=torch.tensor([[20, 21]]), pixel_values=frames(1))


def test_p6_grids(tiny):
    with pytest.raises(MismatchError, match="3 tiles, but 2 tiles"):
        tiny.get_image_features(frames(2), image_grid_thw=torch.tensor([[3, 1, 1]]))
    with pytest.raises(MismatchError, match="5 frames, but 4 frames"):
        tiny.get_video_features(frames(4), video_grid_thw=torch.tensor([[5, 1, 1]]))


def test_p6_grids_of_another_form(tiny):
    for grid in ([[2, 7, 9]], [[2, 1, 1], [0, 1, 1]]):
        with pytest.raises(MismatchError, match="every row of the grid"):
            tiny.get_image_features(frames(2), image_grid_thw=torch.tensor(grid))


def test_p6_caches_of_others():
    from pvc.testing import tiny_model

    _, cache = tiny_model(vision={"temporal_window": 4}).model.encode_frames(frames(2))
    with pytest.raises(MismatchError, match="temporal_window 4, but the model has None"):
        tiny_model().model.encode_frames(frames(1), cache)
    relative = tiny_model(vision={"timestep": "relative"}).model
    _, cache = relative.encode_frames(frames(2), total_steps=4)
    with pytest.raises(MismatchError, match="4 steps in total, not 40"):
        relative.encode_frames(frames(1), cache, total_steps=40)


def test_p6_steps(tiny):
    with pytest.raises(MismatchError, match="3 entries, but there are 2 tiles"):
        tiny.get_image_features(frames(2), image_steps=torch.tensor([4, 4, 4]))
    with pytest.raises(MismatchError, match="different image_steps"):
        tiny.get_image_features(frames(2), image_grid_thw=torch.tensor([[2, 1, 1]]), image_steps=torch.tensor([4, 2]))
    with pytest.raises(UsageError, match="at least 1"):
        tiny.get_image_features(frames(2), image_steps=0)


def test_p6_clips(tiny):
    tower = tiny.model.vision_tower
    with pytest.raises(MismatchError, match="5 frames together, but 4 frames"):
        tower(frames(4), frames=[2, 3])
    with pytest.raises(MismatchError, match="2 frames, but 3 steps"):
        tower(frames(2), frames=[2], steps=[3])
    with pytest.raises(MismatchError, match="1 clips have frames, but 2 have steps"):
        tower(frames(2), frames=[2], steps=[2, 2])


def test_p6_steps_beyond_the_window():
    from pvc.testing import tiny_model

    model = tiny_model(vision={"temporal_window": 4})
    with pytest.raises(UsageError, match="temporal window, 4"):
        model.get_image_features(frames(1), image_steps=5)


def test_p6_features_need_ids(tiny):
    features = tiny.get_image_features(frames(1))
    with pytest.raises(UsageError, match="input_ids"):
        tiny(inputs_embeds=torch.zeros(1, 6, 32), mm_encoder_outputs={"image": features})
    with pytest.raises(UsageError, match="not both"):
        tiny(input_ids=ids(4), pixel_values=frames(1), mm_encoder_outputs={"image": features})
    with pytest.raises(UsageError, match="exactly one"):
        tiny()
