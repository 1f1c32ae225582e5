# SPDX-License-Identifier: Apache-2.0
"""DeepFloyd IF's first stage, small and random, in the folder that diffusers and transformers themselves write."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

WORDS = ("▁a", "▁red", "▁blue", "▁chair", "▁table", "▁", *"abcdefghijklmnopqrstuvwxyz")


def tokenizer() -> Any:
    """T5's kind of tokenizer, as the library of tokenizers makes it: padding 0, end 1, unknown 2, then pieces and their log odds."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    vocab = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), *((word, -2.0 - 0.1 * k) for k, word in enumerate(WORDS))]
    made = Tokenizer(models.Unigram(vocab, unk_id=2, byte_fallback=False))
    made.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always", split=True)]
    )
    made.post_processor = processors.TemplateProcessing(single="$A </s>", pair="$A </s> $B </s>", special_tokens=[("</s>", 1)])
    made.add_special_tokens(["<pad>", "</s>", "<unk>"])
    return made


def parts(out_channels: int = 6) -> dict[str, Any]:
    """unet, text_encoder and scheduler."""
    from diffusers import DDPMScheduler, UNet2DConditionModel
    from transformers import T5Config, T5EncoderModel

    with torch.random.fork_rng():
        torch.random.default_generator.manual_seed(3)
        unet = UNet2DConditionModel(
            sample_size=16,
            in_channels=3,
            out_channels=out_channels,
            layers_per_block=1,
            block_out_channels=(16, 32),
            down_block_types=("ResnetDownsampleBlock2D", "SimpleCrossAttnDownBlock2D"),
            mid_block_type="UNetMidBlock2DSimpleCrossAttn",
            up_block_types=("SimpleCrossAttnUpBlock2D", "ResnetUpsampleBlock2D"),
            norm_num_groups=8,
            cross_attention_dim=64,
            encoder_hid_dim=32,
            attention_head_dim=8,
            addition_embed_type="text",
            addition_embed_type_num_heads=2,
            cross_attention_norm="group_norm",
            resnet_time_scale_shift="scale_shift",
            act_fn="gelu",
        )
        config = T5Config(vocab_size=48, d_model=32, d_kv=8, d_ff=48, num_layers=2, num_heads=4, feed_forward_proj="gated-gelu")
        encoder = T5EncoderModel(config)
        for p in encoder.parameters():  # transformers' own start is so small that no two texts differ
            torch.nn.init.normal_(p, std=0.3) if p.ndim > 1 else torch.nn.init.ones_(p)
    scheduler = DDPMScheduler(
        num_train_timesteps=1000,
        beta_schedule="squaredcos_cap_v2",
        prediction_type="epsilon",
        variance_type="learned_range",
        thresholding=True,
        dynamic_thresholding_ratio=0.95,
        sample_max_value=1.5,
    )
    return {"unet": unet.eval(), "text_encoder": encoder.eval(), "scheduler": scheduler}


def pipeline(made: dict[str, Any]) -> Any:
    """diffusers' own, without what guards published pictures."""
    from diffusers import IFPipeline
    from transformers import PreTrainedTokenizerFast

    words = PreTrainedTokenizerFast(tokenizer_object=tokenizer(), eos_token="</s>", unk_token="<unk>", pad_token="<pad>")
    return IFPipeline(tokenizer=words, **made, safety_checker=None, feature_extractor=None, watermarker=None, requires_safety_checker=False)


def write(folder: Path, out_channels: int = 6) -> Path:
    pipeline(parts(out_channels)).save_pretrained(folder)
    return folder
