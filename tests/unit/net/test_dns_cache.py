"""What is kept of DNS is bounded, and the least used goes first."""

from hypothesis import given, settings
from hypothesis import strategies as st

from mailyard.net.dns_cache import DnsCache


def test_what_was_kept_holds_until_its_time() -> None:
    cache: DnsCache[str, int] = DnsCache(10, 1000)
    cache.put("a", 1, until=5.0, size_bytes=10)
    assert cache.get("a", 4.0) == (1, 1.0)
    assert cache.get("a", 5.0) is None
    assert len(cache) == 0


def test_the_least_used_entry_goes_first() -> None:
    cache: DnsCache[str, int] = DnsCache(2, 1000)
    for number, key in enumerate("ab"):
        cache.put(key, number, 9.0, 1)
    cache.get("a", 0.0)
    cache.put("c", 2, 9.0, 1)
    assert cache.get("b", 0.0) is None
    assert cache.get("a", 0.0) == (0, 9.0)


def test_an_entry_larger_than_everything_is_not_kept() -> None:
    cache: DnsCache[str, int] = DnsCache(2, 100)
    cache.put("a", 1, 9.0, 101)
    assert len(cache) == 0


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 9), st.integers(0, 60), st.floats(0, 20)), max_size=60),
    st.integers(1, 5),
)
def test_never_more_entries_or_bytes_than_allowed(
    puts: list[tuple[int, int, float]], entries: int
) -> None:
    cache: DnsCache[int, int] = DnsCache(entries, 100)
    sizes: dict[int, int] = {}
    for key, size_bytes, until in puts:
        cache.put(key, size_bytes, until, size_bytes)
        sizes[key] = size_bytes
        held = [cache.get(one, -1.0) for one in sizes]
        assert len(cache) <= entries
        assert sum(one[0] for one in held if one is not None) <= 100
