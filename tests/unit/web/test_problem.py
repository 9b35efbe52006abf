"""Errors as the API answers them."""

import msgspec

from mailyard.storage.blob import BlobsAway
from mailyard.web.api.problem import Problem, answer_of


def test_a_store_that_is_away_is_said_with_when_to_come_again() -> None:
    answer = answer_of(BlobsAway("the blob store was away a moment ago"), "r")
    problem = msgspec.json.decode(answer.body, type=Problem)
    assert (answer.status, problem.code) == (503, "blobs_away")
    assert dict(answer.headers)[b"retry-after"] == b"6"
