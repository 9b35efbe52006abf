"""What a stage makes of how an item stands."""

import pytest

from mailyard.core.errors import InvalidInput
from mailyard.fleet.checkup.finding import Grade
from mailyard.fleet.readiness import needs
from mailyard.fleet.readiness.item import Item, Standing, met, missing, thin
from mailyard.fleet.readiness.needs import NEEDS, Need
from mailyard.fleet.stage import Stage, parse_stage

EXPECTED = {
    (Standing.MET, Need.WISHED): Grade.GOOD,
    (Standing.MET, Need.MUST): Grade.GOOD,
    (Standing.THIN, Need.WISHED): Grade.WARN,
    (Standing.THIN, Need.MUST): Grade.WARN,
    (Standing.MISSING, Need.WISHED): Grade.WARN,
    (Standing.MISSING, Need.MUST): Grade.BAD,
}


@pytest.mark.parametrize("stage", list(Stage))
@pytest.mark.parametrize("standing", list(Standing))
@pytest.mark.parametrize("check", list(NEEDS))
def test_every_item_is_graded_at_every_stage_as_the_table_says(
    check: str, standing: Standing, stage: Stage
) -> None:
    findings = needs.grade([Item(check, standing, "so", "do this")], stage)
    wanted = needs.need(check, stage)
    if wanted is Need.NOT:
        assert findings == []
        return
    (finding,) = findings
    assert finding.grade is EXPECTED[standing, wanted]
    assert bool(finding.fix) is (finding.grade is not Grade.GOOD)


def test_a_later_stage_never_wants_less() -> None:
    order = [Need.NOT, Need.WISHED, Need.MUST]
    for check, wanted in NEEDS.items():
        ranks = [order.index(one) for one in wanted]
        assert ranks == sorted(ranks), check


def test_findings_come_in_the_order_of_the_table() -> None:
    items = [met(check, "so") for check in reversed(NEEDS)]
    assert [one.check for one in needs.grade(items, Stage.REGIONS)] == list(NEEDS)


def test_how_an_item_stands_is_one_of_three() -> None:
    assert met("x", "y").fix == ""
    assert thin("x", "y", "z").standing is Standing.THIN
    assert missing("x", "y", "z").standing is Standing.MISSING


@pytest.mark.parametrize("stage", list(Stage))
def test_a_stage_is_named_by_number_or_word(stage: Stage) -> None:
    assert parse_stage(str(stage.value)) is parse_stage(stage.word) is stage
    assert parse_stage(stage.name) is stage


@pytest.mark.parametrize("text", ["", "0", "5", "moon"])
def test_a_stage_that_is_none_is_told_with_those_that_are(text: str) -> None:
    with pytest.raises(InvalidInput, match=r"1 \(one-server\), 2 \(separate-roles\)"):
        parse_stage(text)
