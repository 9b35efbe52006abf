"""Settings that are read again: what is safe is taken over, the rest is named."""

import asyncio
import socket
from dataclasses import replace
from pathlib import Path

import pytest

from mailyard.app import Application
from mailyard.core.errors import ConfigurationError
from mailyard.fleet.control import Control
from mailyard.observe import log
from mailyard.settings import SAFE, Settings, as_environment, load_settings, reload, reloaded


def test_what_is_safe_is_taken_over_and_the_rest_waits() -> None:
    old = load_settings({})
    new = replace(old, port=9999, log_level="error", rate_per_s=5.0)
    told = reload(old, new)
    assert (told.taken, told.waiting) == (("rate_per_s", "log_level"), ("port",))
    assert told.settings == replace(old, log_level="error", rate_per_s=5.0)
    said = reloaded(told)
    assert "in force now: rate_per_s, log_level; need a restart: port" in said
    assert reload(told.settings, new).waiting == ("port",), "said again as long as it waits"
    assert "none has changed" in reloaded(reload(old, old))


def test_every_safe_setting_is_one() -> None:
    assert set(Settings.__dataclass_fields__) >= SAFE
    new = replace(load_settings({}), rate_per_s=5.0)
    assert load_settings(as_environment(new)) == new, "as the supervisor hands it on"


def test_a_file_that_a_setting_names_is_read_anew_or_nothing_changes(tmp_path: Path) -> None:
    file = tmp_path / "limits.toml"
    file.write_text("[policy.mine]\nunits = 10\nwindow_s = 1\nburst = 1\n")
    settings = load_settings({"MAILYARD_LIMIT_POLICIES_FILE": str(file)})
    application = Application(settings)
    assert application.limit_policies.book["mine"].units == 10
    file.write_text("[policy.mine]\nunits = 20\nwindow_s = 1\nburst = 1\n")
    application.reload(settings)
    assert application.limit_policies.book["mine"].units == 20
    file.write_text("nonsense")
    with pytest.raises(ConfigurationError):
        application.reload(replace(settings, log_level="error"))
    assert application.limit_policies.book["mine"].units == 20
    assert application.settings.log_level == "info"


async def test_a_child_hears_settings_in_pieces_and_several_at_once() -> None:
    ours, theirs = socket.socketpair()
    control = Control(theirs.detach())
    heard: list[str] = []
    control.hear_settings(heard.append)
    control.listen(lambda: None)
    ours.send(b'go\nsettings {"a"')
    await control.go()
    ours.send(b": 1}\nsettings {}\n")
    async with asyncio.timeout(20):
        while len(heard) < 2:
            await asyncio.sleep(0.01)
    assert heard == ['{"a": 1}', "{}"]
    ours.close()


def test_the_log_goes_by_the_level_that_was_set_last(capsys: pytest.CaptureFixture[str]) -> None:
    import structlog

    log.set_up(level="error", form="text", role="test")
    try:
        logger = structlog.get_logger("reload")
        logger.info("one")
        log.set_level("info")
        logger.info("two")
        log.set_level("warning")
        logger.info("three")
        logger.error("four")
    finally:
        structlog.reset_defaults()
    said = capsys.readouterr().err
    assert [word in said for word in ("one", "two", "three", "four")] == [False, True, False, True]
