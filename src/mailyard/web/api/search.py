"""Search over received mail: of the workspace or of one inbox."""

from typing import Annotated, Any

import msgspec
from msgspec import UNSET, Meta, UnsetType

from mailyard.access import scope
from mailyard.access.audit import Change
from mailyard.core import ids, limits
from mailyard.mailbox.search.index import Setting
from mailyard.mailbox.search.language import AUTO, languages
from mailyard.mailbox.search.search import MODES, NEWEST, SORTS, WORDS, Found
from mailyard.web.api.message_item import MessageItem, line_of
from mailyard.web.api.page import (
    Input,
    Moment,
    NextCursor,
    Output,
    PageQuery,
    id_pattern,
    read_cursor,
    write_cursor,
)
from mailyard.web.api.route import Answer, Call, Route

TAG = "Search"
_GRAMMAR = (
    'Words (`invoice`), phrases (`"final offer"`), beginnings (`inv*`), parts (`*voice*`); '
    "`from:`, `to:`, `subject:`, `filename:`, `list:`, `has:attachment`, `label:`, `folder:`; "
    "`is:` unread, read, starred, muted, snoozed; `before:`, `after:` (2026-01-31, 2026-01, today, "
    "yesterday, 7d), `larger:`, `smaller:` (500k, 2M); together with `and` (or nothing), `or`, "
    "`not` (or `-`) and parentheses. Without it: all mail."
)
_Text = Annotated[
    str,
    Meta(
        max_length=limits.SEARCH_QUERY_CHARACTERS,
        description=_GRAMMAR,
        examples=["from:ann invoice"],
    ),
]
_Where = Annotated[
    str, Meta(pattern=id_pattern(ids.INBOX), description="In this inbox; without it, in all.")
]
_Sort = Annotated[
    str,
    Meta(
        pattern=f"^({'|'.join(SORTS)})$",
        description=f"`newest` first, or the `best` of the newest {limits.SEARCH_RANKED:,}.",
    ),
]


_Mode = Annotated[
    str,
    Meta(
        pattern=f"^({'|'.join(MODES)})$",
        description="`words`: what says these words. `meaning`: what says the like, the nearest "
        "first, where the installation and the workspace have it switched on; `q` is then words, "
        "and `before:` and `after:`.",
    ),
]


class SearchQuery(PageQuery):
    """What to look for."""

    q: _Text = ""
    inbox_id: _Where | None = None
    sort: _Sort = NEWEST
    mode: _Mode = WORDS


class FoundMessage(MessageItem, gc=False):
    """A message that a search found."""

    snippet: Annotated[
        str,
        Meta(description="HTML, all text escaped: where it says what was looked for, in `<mark>`."),
    ]
    subject_html: Annotated[str, Meta(description="The subject in the same way.")]


class FoundPage(Output):
    """Messages that a search found; one in several inboxes is found once."""

    items: list[FoundMessage]
    next_cursor: NextCursor
    looked_until: Annotated[
        Moment | None,
        Meta(description="A page that is not full, with a cursor: it was looked back to here."),
    ]


class SearchSettings(Output):
    """How the workspace's mail is made ready for searches."""

    language: Annotated[
        str,
        Meta(description="`auto`: each mail in its own; or one of PostgreSQL's configurations."),
    ]
    every_word: Annotated[
        bool,
        Meta(description="Parts of all words can be looked for, not of long ones and names alone."),
    ]
    by_meaning: Annotated[bool, Meta(description="Mail can be found by meaning.")]
    languages: Annotated[list[str], Meta(description="What `language` may be.")]


class SearchSettingsChange(Input):
    """What to change. Mail that comes from then on is indexed so."""

    language: Annotated[str, Meta(max_length=40)] | UnsetType = UNSET
    every_word: bool | UnsetType = UNSET
    by_meaning: bool | UnsetType = UNSET


def found_page(found: Found) -> FoundPage:
    """A page of hits as the API gives it."""
    return FoundPage(
        items=[
            FoundMessage(
                *line_of(hit.summary, ids.type_id(ids.INBOX, hit.summary.inbox_id)),
                snippet=hit.snippet,
                subject_html=hit.subject,
            )
            for hit in found.hits
        ],
        next_cursor=write_cursor(found.next_cursor),
        looked_until=found.looked_until,
    )


async def search_messages(call: Call[None, SearchQuery]) -> FoundPage:
    query = call.query
    inbox_id = (
        None
        if query.inbox_id is None
        else ids.parse_type_id(ids.INBOX, query.inbox_id, field="inbox_id")
    )
    return found_page(
        await call.app.search.find(
            call.workspace_id,
            query.q,
            inbox_id=inbox_id,
            sort=query.sort,
            mode=query.mode,
            cursor=read_cursor(query.cursor),
            limit=query.limit,
        )
    )


async def _settings(call: Call[Any, None]) -> SearchSettings:
    return _shown(await call.app.indexer.setting(call.workspace_id))


def _shown(setting: Setting) -> SearchSettings:
    return SearchSettings(
        language=setting.language,
        every_word=setting.every_word,
        by_meaning=setting.by_meaning,
        languages=[AUTO, *languages()],
    )


async def get_search_settings(call: Call[None, None]) -> SearchSettings:
    return await _settings(call)


async def change_search_settings(call: Call[SearchSettingsChange, None]) -> Answer:
    body = call.body
    async with call.app.database.transaction() as tx:
        before, after = await call.app.indexer.change(
            call.workspace_id,
            language=None if isinstance(body.language, UnsetType) else body.language,
            every_word=None if isinstance(body.every_word, UnsetType) else body.every_word,
            by_meaning=None if isinstance(body.by_meaning, UnsetType) else body.by_meaning,
            tx=tx,
        )
        answer = _shown(after)
        subject = ids.type_id(ids.WORKSPACE, call.workspace_id)
        changed = Change(
            "search.change", subject, msgspec.to_builtins(before), msgspec.to_builtins(after)
        )
        return await call.done(tx, answer, changed)


class InboxSearch(Input):
    """Whether an inbox's mail can be found by meaning."""

    by_meaning: Annotated[bool | None, Meta(description="Null: as the workspace.")]


class InboxSearchItem(Output):
    """Whether an inbox's mail can be found by meaning."""

    by_meaning: Annotated[bool | None, Meta(description="Null: as the workspace.")]


async def get_inbox_search(call: Call[None, None]) -> InboxSearchItem:
    said = await call.app.indexer.says(call.workspace_id, call.ids["inbox_id"])
    return InboxSearchItem(by_meaning=said)


async def set_inbox_search(call: Call[InboxSearch, None]) -> Answer:
    inbox_id, after = call.ids["inbox_id"], call.body.by_meaning
    before = await call.app.indexer.says(call.workspace_id, inbox_id)
    async with call.app.database.transaction() as tx:
        await call.app.indexer.say(call.workspace_id, inbox_id, after, tx)
        subject = ids.type_id(ids.INBOX, inbox_id)
        changed = Change("search.inbox", subject, {"by_meaning": before}, {"by_meaning": after})
        return await call.done(tx, InboxSearchItem(by_meaning=after), changed)


class ReindexRequest(Input):
    """What to index anew."""

    again: Annotated[
        bool, Meta(description="Also what is indexed already: after a change of settings.")
    ] = False


class ReindexStarted(Output):
    """It goes on in the background."""

    started: bool


async def reindex(call: Call[ReindexRequest, None]) -> Answer:
    async with call.app.database.transaction() as tx:
        await call.app.reindexer.start(call.workspace_id, again=call.body.again, tx=tx)
        subject = ids.type_id(ids.WORKSPACE, call.workspace_id)
        asked = Change("search.reindex", subject, None, {"again": call.body.again})
        return await call.done(tx, ReindexStarted(started=True), asked)


ROUTES = (
    Route(
        "GET",
        "/v1/search",
        search_messages,
        "searchMessages",
        TAG,
        "Search received mail",
        scope.INBOXES_READ,
        answer=FoundPage,
        query=SearchQuery,
        errors=(404,),
        description="Mail is found a moment after it is listed: the index follows.",
    ),
    Route(
        "GET",
        "/v1/search/settings",
        get_search_settings,
        "getSearchSettings",
        TAG,
        "Read how mail is indexed",
        scope.INBOXES_READ,
        answer=SearchSettings,
    ),
    Route(
        "PATCH",
        "/v1/search/settings",
        change_search_settings,
        "changeSearchSettings",
        TAG,
        "Change how mail is indexed",
        scope.INBOXES_WRITE,
        answer=SearchSettings,
        body=SearchSettingsChange,
    ),
    Route(
        "GET",
        "/v1/inboxes/{inbox_id:ibx}/search",
        get_inbox_search,
        "getInboxSearch",
        TAG,
        "Read whether an inbox's mail can be found by meaning",
        scope.INBOXES_READ,
        answer=InboxSearchItem,
    ),
    Route(
        "PUT",
        "/v1/inboxes/{inbox_id:ibx}/search",
        set_inbox_search,
        "setInboxSearch",
        TAG,
        "Set whether an inbox's mail can be found by meaning",
        scope.INBOXES_WRITE,
        answer=InboxSearchItem,
        body=InboxSearch,
        description="Mail that comes from then on is made ready for it; what lies there by "
        "`POST /v1/search/reindex`.",
    ),
    Route(
        "POST",
        "/v1/search/reindex",
        reindex,
        "reindexMail",
        TAG,
        "Index the mail that lies in the workspace's inboxes",
        scope.INBOXES_WRITE,
        status=202,
        answer=ReindexStarted,
        body=ReindexRequest,
    ),
)
