"""What mail means, by rules and by models."""

from functools import cached_property
from typing import TYPE_CHECKING

from mailyard.app.receiving import Receiving

if TYPE_CHECKING:
    from mailyard.analysis.analyses import Analyses
    from mailyard.analysis.analyst import Analyst
    from mailyard.analysis.book import ModelBook, OpenModel
    from mailyard.analysis.model import Model
    from mailyard.analysis.policy import Policies
    from mailyard.net.http import HttpClient
    from mailyard.queue.batch import Batch


class Analysing(Receiving):
    """Models, their budget, what they answered."""

    @cached_property
    def analysis_policies(self) -> "Policies":
        from mailyard.analysis.policy import Policies

        return Policies(database=self.database)

    @cached_property
    def models(self) -> "ModelBook":
        """The models that workspaces have."""
        from mailyard.analysis.book import ModelBook

        plain_http = bool(self.settings.analysis_networks)
        return ModelBook(database=self.database, vault=self.vault, plain_http=plain_http)

    @cached_property
    def model_http(self) -> "HttpClient":
        """The way to models' servers."""
        from mailyard.net.guard import networks_in
        from mailyard.net.http import HttpClient, HttpOptions

        allowed = networks_in(self.settings.analysis_networks)
        # A model that thinks sends nothing for long.
        http = HttpClient(allowed=allowed, options=HttpOptions(read_s=120.0, total_s=120.0))
        self.ends.append(http.close)
        return http

    @cached_property
    def analyst(self) -> "Analyst":
        """What asks the models in their order, and the rules at last."""
        from random import Random

        from mailyard.analysis.analyst import Analyst
        from mailyard.analysis.results import Results

        return Analyst(
            database=self.database,
            book=self.models,
            policies=self.analysis_policies,
            results=Results(
                database=self.database, keys=lambda: self.vault.keys_for("analysis results")
            ),
            make=self._make_model,
            rate=self.limits,
            clock=self.clock,
            random=Random(),
        )

    @cached_property
    def analyses(self) -> "Analyses":
        from mailyard.analysis.analyses import Analyses

        return Analyses(
            database=self.database,
            engine=self.engine,
            live=self.live,
            book=self.models,
            analyst=self.analyst,
            raw_mail=self.raw_mail,
        )

    async def analyse(self, batch: "Batch") -> None:
        """Jobs of the lane `analysis`; what they need is loaded with the first."""
        await self.analyses.handle(batch)

    def _make_model(self, model: "OpenModel") -> "Model":
        from mailyard.analysis.models.kinds import make

        return make(model, self.model_http, self.clock)
