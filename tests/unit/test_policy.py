"""Which reviews the oracle is asked about."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.errors import OptionInvalid
from worker.policy import Policy
from worker.reviews import Failure, Outcome, Score

SCORED: list[tuple[int, Outcome]] = [
    (1, Score("positive", 0.95)),
    (2, Score("negative", 0.9)),
    (3, Score("positive", 0.6)),
    (4, Failure("the logits are not finite")),
    (5, Score("positive", None)),
]


def test_the_adapter_alone_asks_nobody() -> None:
    assert Policy().requests(7, SCORED) == []
    assert not Policy().names_oracle


def test_fallback_asks_only_about_what_the_adapter_could_not_score() -> None:
    assert Policy("fallback").requests(7, SCORED) == [(4, "fallback")]


def test_cascade_asks_about_every_score_under_the_threshold_and_no_other() -> None:
    asked = Policy("cascade", below=0.9).requests(7, SCORED)
    assert asked == [(3, "cascade"), (4, "fallback"), (5, "cascade")]


def test_the_oracle_is_asked_about_everything() -> None:
    assert Policy("oracle").requests(7, SCORED) == [(row, "policy") for row in range(1, 6)]


def test_an_audited_review_is_asked_about_once_for_the_stronger_reason() -> None:
    asked = Policy("cascade", below=0.9, audit=1.0).requests(7, SCORED)
    assert asked == [(1, "audit"), (2, "audit"), (3, "cascade"), (4, "fallback"), (5, "cascade")]
    assert Policy(audit=1.0).names_oracle


def test_the_audited_share_is_near_what_was_asked_and_the_same_every_time() -> None:
    policy = Policy(audit=0.05, audit_seed=3)
    drawn = [row for row in range(20_000) if policy.is_audited(7, row)]
    # Five standard deviations of a binomial draw.
    assert abs(len(drawn) - 1000) < 5 * (20_000 * 0.05 * 0.95) ** 0.5
    assert drawn == [row for row in range(20_000) if policy.is_audited(7, row)]
    other = Policy(audit=0.05, audit_seed=4)
    assert drawn != [row for row in range(20_000) if other.is_audited(7, row)]
    assert drawn != [row for row in range(20_000) if policy.is_audited(8, row)]


def test_a_larger_share_holds_the_smaller_one() -> None:
    small, large = Policy(audit=0.1), Policy(audit=0.3)
    assert all(large.is_audited(7, row) for row in range(2000) if small.is_audited(7, row))


@given(
    below=st.floats(min_value=1e-6, max_value=1),
    audit=st.floats(min_value=0, max_value=1),
    seed=st.integers(),
)
def test_a_policy_is_read_as_it_was_written(below: float, audit: float, seed: int) -> None:
    for policy in (
        Policy("cascade", below=below, audit=audit, audit_seed=seed if audit else 0),
        Policy("fallback", audit=audit, audit_seed=seed if audit else 0),
        Policy("cascade", guarantee=below, delta=0.01, audit_seed=seed),
        Policy("cascade", guarantee=below, label_budget=abs(seed) + 1, audit_seed=seed),
    ):
        assert Policy.parse(str(policy)) == policy


def test_with_a_guarantee_nothing_is_asked_because_of_a_score() -> None:
    policy = Policy("cascade", guarantee=0.95)
    assert policy.has_sample
    assert not Policy("cascade", below=0.9).has_sample
    assert policy.requests(7, SCORED) == [
        (row, reason) for row, reason in Policy("fallback").requests(7, SCORED) if reason == "fallback"
    ]


def test_the_default_is_written_as_before_there_were_policies() -> None:
    assert str(Policy()) == "adapter"


@pytest.mark.parametrize(
    "text", ["", "both", "cascade", "adapter --below 0.5", "cascade --below 2", "adapter --audit 0.1"]
)
def test_what_is_no_policy_is_refused(text: str) -> None:
    with pytest.raises(OptionInvalid):
        Policy.parse(text)


@pytest.mark.parametrize("value", [0.0, 1.5, -1.0, float("nan")])
def test_a_threshold_that_is_no_probability_is_refused(value: float) -> None:
    with pytest.raises(OptionInvalid, match="--below"):
        Policy("cascade", below=value)
