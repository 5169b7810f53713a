"""TF-IDF with logistic regression: what a review's words say without their order, in seconds on a CPU.

The yardstick of every text classifier (Wang and Manning 2012): a neural model that isn't better isn't needed.
"""

from __future__ import annotations

import pickle
import time

from trainer.contenders.task import LeftOut, Reviews, Row, Task, Training, indices, pick
from worker.model.encoding import clean

STRENGTHS = (1.0, 4.0, 16.0)
"""Inverse strengths of the regularisation that are tried; the validation part chooses."""


def measure(task: Task, reviews: Reviews) -> Row:
    """Fits on single words and pairs that occur twice or more, term frequencies on a log scale.

    Raises:
        LeftOut: scikit-learn isn't installed.
    """
    try:
        from sklearn.feature_extraction.text import TfidfVectorizer
        from sklearn.linear_model import LogisticRegression
    except ImportError as error:
        raise LeftOut("scikit-learn isn't installed: pip install 'scikit-learn>=1.9'") from error
    learn, validation = reviews.parts(task.settings)
    gold = indices(reviews.train)
    best_accuracy = -1.0
    with Training() as training:
        texts = [clean(text, "markup") for text in reviews.train.texts]
        vectorizer = TfidfVectorizer(ngram_range=(1, 2), min_df=2, sublinear_tf=True)
        features = vectorizer.fit_transform(pick(texts, learn))
        validation_features = vectorizer.transform(pick(texts, validation))
        for strength in STRENGTHS:
            fitted = LogisticRegression(C=strength, max_iter=1000, random_state=task.settings.seed)
            fitted.fit(features, pick(gold, learn))
            accuracy = float(fitted.score(validation_features, pick(gold, validation)))
            if accuracy > best_accuracy:
                best_accuracy, model = accuracy, fitted
    started = time.perf_counter()
    given = model.predict(vectorizer.transform([clean(text, "markup") for text in reviews.test.texts]))
    seconds = time.perf_counter() - started
    coefficients = int(model.coef_.size + model.intercept_.size)
    return Row(
        key=task.contender.key,
        title=task.contender.title,
        trainable_parameters=coefficients,
        parameters=coefficients,
        memory=training.memory,
        train_seconds=training.seconds,
        test_seconds=seconds,
        size=len(pickle.dumps((vectorizer, model))),
        size_of="vocabulary and coefficients, pickled",
        n=len(given),
        right=int((given == indices(reviews.test)).sum()),
        details={"device": "cpu", "validation_accuracy": best_accuracy, "C": model.C},
    )
