"""From settings to the oracle's scorers: the place that chooses who is asked, and how."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from worker.bootstrap import Store
from worker.errors import OracleInvalid, SettingsInvalid
from worker.oracle.money import parse_prices, price_of
from worker.oracle.prompts import Template
from worker.oracle.spec import DEFAULT_PER_PROMPT, OracleSpec, choose_route
from worker.oracle.windows import TextWindow
from worker.settings import Settings
from worker.store.packing import PackRule

if TYPE_CHECKING:
    from worker.scorers.asking import OracleScorer
    from worker.scorers.bulk import BulkScorer


def oracle_spec(
    settings: Settings,
    labels: tuple[str, ...],
    *,
    model: str | None = None,
    route: str = "auto",
    template: str = "zero-shot-v1",
    text_window: str = "tail:500",
    reviews_per_prompt: int | None = None,
    redacted: bool = False,
) -> OracleSpec:
    """Who the oracle of a new job is.

    Raises:
        OptionInvalid: one of the options isn't possible.
        SettingsInvalid: nobody said what the model costs.
    """
    model = model or settings.oracle_model
    chosen = choose_route(route, model, settings.oracle_url)
    price_of(model, parse_prices(settings.prices))
    return OracleSpec(
        model=model,
        labels=labels,
        route=chosen,
        template=Template.find(template),
        window=TextWindow.parse(text_window),
        reviews_per_prompt=DEFAULT_PER_PROMPT[chosen] if reviews_per_prompt is None else reviews_per_prompt,
        redacted=redacted,
        base_url=settings.oracle_url,
    )


class Oracles:
    """The oracle's scorers of one process, made when first asked for. Safe for several threads."""

    def __init__(self, settings: Settings, store: Store) -> None:
        self._settings = settings
        self._store = store
        self._lock = threading.Lock()
        self._specs: dict[int, OracleSpec] = {}
        self._made: dict[int, OracleScorer | BulkScorer] = {}

    def spec(self, scorer_id: int) -> OracleSpec:
        """How a scorer of the database is asked."""
        with self._lock:
            if scorer_id not in self._specs:
                self._specs[scorer_id] = OracleSpec.parse(self._store.queries.scorer(scorer_id).details)
            return self._specs[scorer_id]

    def __call__(self, scorer_id: int) -> OracleScorer | BulkScorer:
        """The scorer, ready to ask.

        Raises:
            OracleInvalid: no key, no price, or it is to be asked elsewhere than this worker may.
        """
        spec = self.spec(scorer_id)
        with self._lock:
            if scorer_id not in self._made:
                self._made[scorer_id] = make_oracle(spec, self._settings)
            return self._made[scorer_id]

    def pack_rule(self, scorer_id: int) -> PackRule:
        """How its requests become batches."""
        spec, settings = self.spec(scorer_id), self._settings
        if spec.route == "bulk":
            return PackRule(settings.bulk_size, 4, settings.bulk_after_s, bulk=True)
        return PackRule(spec.reviews_per_prompt, settings.publish_window, settings.pack_after_s)


def make_oracle(spec: OracleSpec, settings: Settings) -> OracleScorer | BulkScorer:
    """The scorer of a spec.

    Raises:
        OracleInvalid: no key, no price, or it is to be asked elsewhere than OPENAI_BASE_URL says: the key is for
            that address alone.
    """
    from worker.scorers.asking import OracleScorer
    from worker.scorers.bulk import BulkScorer
    from worker.scorers.chat import ChatRoute
    from worker.scorers.decisions import DecisionsRoute
    from worker.scorers.openai_client import make_client

    if spec.base_url != settings.oracle_url:
        raise OracleInvalid(
            f"this job's oracle is at {spec.base_url}, but this worker asks {settings.oracle_url}. "
            "Set OPENAI_BASE_URL for the worker as it was when the job was enqueued."
        )
    try:
        price = price_of(spec.model, parse_prices(settings.prices))
    except SettingsInvalid as error:
        raise OracleInvalid(str(error)) from error
    key = settings.openai_api_key.get_secret_value() if settings.openai_api_key else None
    client = make_client(key, spec.base_url, timeout_s=settings.oracle_timeout_s)
    if spec.route == "bulk":
        return BulkScorer(spec, client, price)
    route = DecisionsRoute(client, spec) if spec.route == "decisions" else ChatRoute(client, spec)
    return OracleScorer(spec, route, price)
