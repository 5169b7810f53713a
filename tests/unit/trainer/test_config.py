import torch
from transformers import AutoModelForSequenceClassification, RobertaConfig

from trainer.config import RECIPES, TrainConfig
from worker.model.lora import lora_config, new_adapter

DISTILROBERTA = RobertaConfig(
    vocab_size=50265,
    hidden_size=768,
    num_hidden_layers=6,
    num_attention_heads=12,
    intermediate_size=3072,
    max_position_embeddings=514,
    type_vocab_size=1,
    num_labels=2,
)


def test_the_articles_recipe_has_the_published_counts() -> None:
    settings = RECIPES["imdb-distilroberta"].settings
    # On torch's meta device: the architecture without its weights.
    with torch.device("meta"):
        base = AutoModelForSequenceClassification.from_config(DISTILROBERTA)
        assert base.num_parameters() == 82_119_938
        lora = lora_config(
            rank=settings["rank"],
            alpha=settings["alpha"],
            dropout=settings["lora_dropout"],
            targets=settings["targets"],
        )
        trainable, everything = new_adapter(base, lora).get_nb_trainable_parameters()
    assert trainable == 739_586
    assert everything == 82_859_524
    assert f"{trainable / everything:.4%}" == "0.8926%"


def test_the_articles_recipe_is_the_articles(tmp_path: object) -> None:
    config = TrainConfig(out=tmp_path, name="a", **RECIPES["imdb-distilroberta"].settings)  # type: ignore[arg-type]
    assert config.base == "distilbert/distilroberta-base"
    assert (config.rank, config.alpha, config.lora_dropout) == (8, 16, 0.1)
    assert config.targets == ("query", "value")
    assert (config.encoding.max_length, config.encoding.truncation) == (256, "head")
    assert (config.learning_rate, config.adam_epsilon, config.clip) == (2e-4, 1e-8, 1.0)
    assert (config.epochs, config.reviews_per_step, config.schedule, config.warmup) == (2, 8, "linear", 0.0)
    assert RECIPES["imdb-distilroberta"].data == "imdb"
