"""What scopes and roles grant."""

import pytest

from mailyard.access import scope
from mailyard.core.errors import InvalidInput


def test_a_write_brings_its_read_and_nothing_else() -> None:
    assert scope.expand([scope.INBOXES_WRITE]) == {scope.INBOXES_WRITE, scope.INBOXES_READ}
    assert scope.expand([scope.EMAILS_SEND]) == {scope.EMAILS_SEND, scope.EMAILS_READ}
    assert scope.expand([scope.INBOXES_READ]) == {scope.INBOXES_READ}


def test_admin_brings_everything() -> None:
    assert scope.expand([scope.ADMIN]) == set(scope.SCOPES)


def test_an_unknown_stored_scope_grants_nothing() -> None:
    assert scope.expand(["moon:write"]) == frozenset()


def test_a_viewer_reads_and_a_member_does_all_but_access() -> None:
    viewer = scope.scopes_of_role(scope.VIEWER)
    assert {name.partition(":")[2] for name in viewer} == {"read"}
    assert scope.scopes_of_role(scope.MEMBER) == set(scope.SCOPES) - {scope.ADMIN}
    assert scope.ADMIN in scope.scopes_of_role(scope.OWNER)


def test_scopes_of_a_new_key_are_known_and_not_none() -> None:
    assert scope.check_scopes(["inboxes:read", "emails:send", "inboxes:read"]) == [
        "emails:send",
        "inboxes:read",
    ]
    for wrong in ([], ["emails:everything"], [""]):
        with pytest.raises(InvalidInput) as caught:
            scope.check_scopes(wrong)
        assert caught.value.field == "scopes"
