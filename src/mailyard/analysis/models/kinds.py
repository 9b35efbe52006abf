"""Which protocol a model speaks."""

from mailyard.analysis.book import OpenModel
from mailyard.analysis.model import Model
from mailyard.analysis.models.anthropic import AnthropicModel
from mailyard.analysis.models.openai import OpenAiModel
from mailyard.core.clock import Clock
from mailyard.net.http import HttpClient


def make(model: OpenModel, http: HttpClient, clock: Clock) -> Model:
    """What asks the model."""
    settings = model.entry.settings
    kind = AnthropicModel if model.entry.kind == "anthropic" else OpenAiModel
    return kind(
        http=http,
        clock=clock,
        base_url=settings.base_url,
        model=settings.model,
        key=model.key,
        structured=settings.structured,
        timeout_s=settings.timeout_s,
    )
