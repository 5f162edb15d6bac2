"""The float32 source: what the exported bundle is measured against.

Pixels, prompt and decoding follow the same semantics as the edge, but through transformers and
torch, so that a mistake on either side shows as a difference.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from tokenizers import Tokenizer
from transformers import PreTrainedModel
from transformers.image_transforms import center_crop, normalize, rescale, resize
from transformers.image_utils import ChannelDimension, PILImageResampling

from tinyllava_edge.prompt import Reading, prefix_text, question_text
from tinyllava_edge.semantics import ImageSemantics, Semantics
from tinyllava_export.checkpoints.contract import Checkpoint
from tinyllava_export.modules import VisionPath, build_language_model, build_vision_path


@dataclass(frozen=True)
class SourceAnswer:
    """Next-token logits ``[vocabulary]`` at the end of a prompt, and the greedy answer's ids."""

    logits: NDArray[np.float32]
    token_ids: tuple[int, ...]
    text: str


class Source:
    """A checkpoint run in float32 on the CPU. Raises ``CheckpointError`` for missing tensors."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        self.semantics: Semantics = checkpoint.semantics
        self.vision: VisionPath = build_vision_path(checkpoint)
        self.language_model: PreTrainedModel = build_language_model(checkpoint)
        self.tokenizer: Tokenizer = read_tokenizer(checkpoint)

    @torch.inference_mode()
    def see(self, pixels: NDArray[np.float32]) -> NDArray[np.float32]:
        """Image embeddings ``[image_tokens, hidden]`` of pixels ``[3, size, size]``."""
        embeds: NDArray[np.float32] = self.vision(torch.from_numpy(pixels)[None])[0].numpy()
        return embeds

    def token_ids(self, text: str) -> list[int]:
        """The ids of one piece of text, without special tokens."""
        ids: list[int] = self.tokenizer.encode(text, add_special_tokens=False).ids
        return ids

    @torch.inference_mode()
    def answer(
        self,
        embeds: NDArray[np.float32],
        question: str,
        readings: Sequence[Reading] = (),
        *,
        max_tokens: int = 32,
    ) -> SourceAnswer:
        """Answer greedily; ``logits`` are those that chose the first token."""
        inputs = self._prompt(embeds, question, readings)
        output = self.language_model(inputs_embeds=inputs, use_cache=True)
        first = output.logits[0, -1].float().numpy()
        ids: list[int] = []
        token = int(first.argmax())
        while token not in self.semantics.prompt.eos_token_ids and len(ids) < max_tokens:
            ids.append(token)
            output = self.language_model(
                input_ids=torch.tensor([[token]]),
                past_key_values=output.past_key_values,
                use_cache=True,
            )
            token = int(output.logits[0, -1].argmax())
        text = self.tokenizer.decode(ids, skip_special_tokens=True)
        lead = self.semantics.prompt.answer_lead
        return SourceAnswer(first, tuple(ids), text.removeprefix(lead).strip())

    def _prompt(
        self, embeds: NDArray[np.float32], question: str, readings: Sequence[Reading]
    ) -> torch.Tensor:
        """``[1, positions, hidden]``: [bos] prefix, picture, question."""
        bos = self.semantics.prompt.bos_token_id
        before = [] if bos is None else [bos]
        before += self.token_ids(prefix_text(self.semantics))
        after = self.token_ids(question_text(question, readings, self.semantics))
        picture = torch.from_numpy(embeds)[None] * self._picture_scale()
        return torch.cat((self._embed(before), picture, self._embed(after)), dim=1)

    def _picture_scale(self) -> float:
        """What Gemma multiplies the embeddings of words and pictures with, where it is ours to do.

        Up to transformers 5.4 the model does it to both. Later the table of words does it to the
        words alone, while TinyLLaVA's models were trained with both.
        """
        table = self.language_model.get_input_embeddings()
        return float(getattr(table, "embed_scale", 1.0))

    def _embed(self, ids: list[int]) -> torch.Tensor:
        table = self.language_model.get_input_embeddings()
        embedded: torch.Tensor = table(torch.tensor([ids], dtype=torch.long))
        return embedded


def read_tokenizer(checkpoint: Checkpoint) -> Tokenizer:
    """The tokenizer, set to take control tokens in a text as plain text, like the edge."""
    tokenizer = Tokenizer.from_str(checkpoint.tokenizer_json().decode())
    tokenizer.encode_special_tokens = True
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer


def source_pixels(image: Image.Image, semantics: ImageSemantics) -> NDArray[np.float32]:
    """Preprocess an RGB picture with transformers' transforms: float32 ``[3, size, size]``."""
    last = ChannelDimension.LAST
    size = semantics.size
    array = np.asarray(_on_square(image, semantics) if semantics.aspect == "pad" else image)
    height, width = array.shape[:2]
    cut = semantics.aspect != "squash"
    target = (size, size)
    if cut:
        side, short = semantics.short_side or size, min(height, width)
        target = (int(side * height / short), int(side * width / short))
    resample = PILImageResampling[semantics.resample.upper()]
    array = resize(array, target, resample, data_format=last, input_data_format=last)
    if cut:
        array = center_crop(array, (size, size), data_format=last, input_data_format=last)
    array = rescale(array, 1 / 255, dtype=np.float32, input_data_format=last)
    array = normalize(
        array,
        semantics.mean,
        semantics.std,
        data_format=ChannelDimension.FIRST,
        input_data_format=last,
    )
    return np.ascontiguousarray(array, dtype=np.float32)


def _on_square(image: Image.Image, semantics: ImageSemantics) -> Image.Image:
    """LLaVA's ``expand2square``."""
    side = max(image.size)
    square = Image.new("RGB", (side, side), semantics.fill_rgb)
    square.paste(image, ((side - image.width) // 2, (side - image.height) // 2))
    return square
