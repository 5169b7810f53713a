"""Tiny random models, built in code: the real encoding, planning, forward pass and persistence run on them."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import (
    BertConfig,
    BertModel,
    DistilBertConfig,
    DistilBertModel,
    PreTrainedTokenizerFast,
    RobertaConfig,
    RobertaModel,
)

from worker.model.classifier import Classifier
from worker.model.encoding import Encoding
from worker.model.lora import lora_config
from worker.model.manifest import Manifest

GOOD = ("wonderful", "delight", "superb", "loved", "brilliant")
BAD = ("awful", "boring", "terrible", "hated", "dreadful")
PLAIN = (
    "the",
    "a",
    "film",
    "book",
    "was",
    "story",
    "it",
    "and",
    "of",
    "an",
    "absolute",
    "from",
    "to",
    "hours",
    "my",
)
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
LABELS = ("negative", "positive")


def make_tokenizer(*, padding: int | None = None) -> PreTrainedTokenizerFast:
    """A word-level tokenizer with [CLS] and [SEP]; `padding` pads to that length, as all-MiniLM-L6-v2's does."""
    words = [*SPECIAL, *GOOD, *BAD, *PLAIN, *(chr(code) for code in range(33, 127))]
    vocabulary = {word: index for index, word in enumerate(dict.fromkeys(words))}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    if padding is not None:
        tokenizer.enable_padding(length=padding, pad_id=0, pad_token="[PAD]")
        tokenizer.enable_truncation(padding)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
        model_max_length=64,
    )


def make_base(
    directory: Path,
    architecture: str = "bert",
    *,
    seed: int = 0,
    padding: int | None = 128,
    positions: int = 64,
) -> Path:
    """Writes a tiny base model, as it would come from the hub: without a classification head."""
    torch.manual_seed(seed)
    tokenizer = make_tokenizer(padding=padding)
    size = len(tokenizer)
    model: Any
    if architecture == "bert":
        model = BertModel(
            BertConfig(
                vocab_size=size,
                hidden_size=16,
                num_hidden_layers=2,
                num_attention_heads=2,
                intermediate_size=32,
                max_position_embeddings=positions,
                initializer_range=0.3,
            )
        )
    elif architecture == "roberta":
        model = RobertaModel(
            RobertaConfig(
                vocab_size=size,
                hidden_size=16,
                num_hidden_layers=2,
                num_attention_heads=2,
                intermediate_size=32,
                max_position_embeddings=positions + 2,
                type_vocab_size=1,
                pad_token_id=1,
                initializer_range=0.3,
            ),
            add_pooling_layer=False,
        )
    else:
        model = DistilBertModel(
            DistilBertConfig(
                vocab_size=size,
                dim=16,
                n_layers=2,
                n_heads=2,
                hidden_dim=32,
                max_position_embeddings=positions,
                initializer_range=0.3,
            )
        )
    model.save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    return directory


def make_classifier(base: Path, *, labels: tuple[str, ...] = LABELS, max_length: int = 32) -> Classifier:
    """An adapter that isn't trained but random, so that its logits are far from 0."""
    torch.manual_seed(1)
    lora = lora_config(rank=2, alpha=4, dropout=0.0, targets="all-linear", init_lora_weights=False)
    classifier = Classifier.create(str(base), labels, Encoding(max_length=max_length), lora)
    with torch.no_grad():
        for name, parameter in classifier.model.named_parameters():
            if "modules_to_save" in name:
                parameter.normal_(std=0.5)
    return classifier


def make_adapter(directory: Path, base: Path, *, labels: tuple[str, ...] = LABELS) -> Manifest:
    """Writes an adapter directory on a tiny base."""
    return make_classifier(base, labels=labels).save(directory, name="tiny", training={}, metrics={})


def make_reviews(count: int, *, seed: int = 0) -> tuple[list[str], list[str]]:
    """Texts and gold labels that three words tell apart."""
    rng = random.Random(seed)
    texts, gold = [], []
    for number in range(count):
        positive = number % 2 == 0
        words = rng.choices(PLAIN, k=rng.randint(3, 20))
        for word in rng.choices(GOOD if positive else BAD, k=3):
            words.insert(rng.randrange(len(words)), word)
        texts.append(" ".join([*words, str(number)]))
        gold.append(LABELS[positive])
    return texts, gold
