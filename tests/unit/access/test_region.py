"""The file of regions, and who notices that a region is another's by now."""

import pytest

from mailyard.access.region import Regions, read_regions
from mailyard.core.errors import ConfigurationError, InvalidInput
from mailyard.fleet.region_term import Terms, overtaken

FILE = """
[eu]
api = "https://eu.mail.example.org/"
smtp = ["mx1.eu.mail.example.org", "mx2.eu.mail.example.org"]
domains = ["eu.inbox.example.org"]

[us]
api = "https://us.mail.example.org"
standby = "postgresql://mailyard@copy/mailyard"
"""


def test_the_regions_of_a_file_and_which_one_is_here() -> None:
    regions = read_regions("regions.toml", FILE, "eu")
    assert regions.here is not None and regions.here.api == "https://eu.mail.example.org"
    assert regions.here.smtp[0] == "mx1.eu.mail.example.org"
    assert [region.name for region in regions.others] == ["us"]
    assert regions.find("us").standby.endswith("@copy/mailyard")
    with pytest.raises(InvalidInput, match="there is no region 'mars'; regions are eu, us"):
        regions.find("mars")


def test_without_a_file_there_is_one_region() -> None:
    assert Regions("eu").others == [] and Regions().here is None


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("eu = 1", "'eu' must be a table"),
        ('[EU]\napi = "https://x"', "'EU' must be a table named by small letters"),
        ('[eu]\napi = "x"', "eu.api must be an address"),
        ('[eu]\napi = "https://x"\nsmpt = []', "eu.smpt is unknown; keys are api, domains"),
        ('[eu]\napi = "https://x"\nsmtp = "mx"', "eu.smtp must be a list"),
        ('[eu]\napi = "https://x"\ndomains = ["EU.example"]', "eu.domains must be a list"),
        ('[eu]\napi = "https://x"\nstandby = "mysql://x"', "eu.standby must be a postgresql"),
        ('[us]\napi = "https://x"', r"has no \[eu\], which MAILYARD_REGION names; it has us"),
        ("[", "is not TOML"),
    ],
)
def test_what_is_wrong_in_a_file_is_named(text: str, said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        read_regions("regions.toml", text, "eu")


def test_a_site_that_was_taken_over_stops_and_the_one_that_took_over_does_not() -> None:
    taken = Terms("us", {"eu": 1}, {"eu": "us"})
    with pytest.raises(ConfigurationError, match=r"eu was taken over by site us \(term 1"):
        overtaken("eu", Terms("eu", {}), [taken])
    overtaken("eu", Terms("eu", {"eu": 1}), [taken])
    overtaken("us", taken, [Terms("eu", {"eu": 1})])
    with pytest.raises(ConfigurationError, match="term 2, this database is of term 1"):
        overtaken("eu", Terms("eu", {"eu": 1}), [Terms("us", {"eu": 2}, {"eu": "us"})])
