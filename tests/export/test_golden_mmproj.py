"""Golden cases and ``mmproj.gguf``: llama.cpp says what the official code says, or is left out."""

import numpy as np
import pytest
from PIL import Image

from tinyllava_edge.preprocess import pixels
from tinyllava_export.checkpoints import open_checkpoint
from tinyllava_export.fidelity import row_cosines
from tinyllava_export.gguf.language_model import write_language_model
from tinyllava_export.mmproj import mmproj_obstacle, write_mmproj
from tinyllava_export.mmproj_features import mmproj_features

REASONS = {
    "factory-phi-siglip-full": "llama.cpp keeps every patch, this model drops the first 1",
    "factory-qwen2-siglip-split": "llama.cpp keeps every patch, this model drops the first 1",
    "factory-tinyllama-siglip-lora": "llama.cpp keeps every patch, this model drops the first 1",
    "factory-tinyllama-clip-resampler": "llama.cpp puts CLIP's class token last",
    "hf-llava-tinyllama-clip": "llama.cpp puts CLIP's class token last",
}


@pytest.mark.parametrize("name", REASONS)
def test_golden_case_is_left_out_with_its_reason(golden_case, name):
    checkpoint = open_checkpoint(golden_case(name).checkpoint)
    assert mmproj_obstacle(checkpoint).startswith(REASONS[name])


def test_llama_cpp_computes_the_golden_features(golden_case, tmp_path):
    """The tower is stored without its last layer, and its feed-forward matrices are square."""
    case = golden_case("legacy-phi-siglip")
    checkpoint = open_checkpoint(case.checkpoint)
    assert mmproj_obstacle(checkpoint) is None
    write_language_model(checkpoint, tmp_path / "llm.gguf", name="legacy", precision="F32")
    write_mmproj(checkpoint, tmp_path / "mmproj.gguf", name="legacy", bits=32)
    # The picture as it enters the tower: how llama.cpp would pad it is a matter of its own.
    numbers = pixels(case.pictures[0], checkpoint.semantics.image).transpose(1, 2, 0)
    prepared = Image.fromarray(np.rint((numbers * 0.5 + 0.5) * 255).astype(np.uint8))
    features = mmproj_features(
        tmp_path / "llm.gguf", tmp_path / "mmproj.gguf", prepared, hidden=checkpoint.text.hidden
    )
    expected = case.arrays["image_features_0"]
    assert features.shape == expected.shape == (729, 64)
    assert row_cosines(features, expected).min() > 0.999
