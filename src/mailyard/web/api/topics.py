"""Topics, and what people have said about them."""

from typing import Annotated, Any

from msgspec import UNSET, Meta, UnsetType

from mailyard.access import scope
from mailyard.access.audit import Change
from mailyard.campaigns.topic import DESCRIPTION_CHARACTERS, NAME_CHARACTERS, Choice, Topic
from mailyard.core import ids
from mailyard.web.api.page import (
    Input,
    Moment,
    NextCursor,
    Output,
    PageQuery,
    TopicId,
    page_of,
    read_cursor,
)
from mailyard.web.api.route import Answer, Call, Route

TAG = "Topics"
_Name = Annotated[str, Meta(min_length=1, max_length=NAME_CHARACTERS, examples=["Weekly news"])]
_Description = Annotated[
    str, Meta(max_length=DESCRIPTION_CHARACTERS, description="Shown on the preference page.")
]
_OnRequest = Annotated[bool, Meta(description="Only who has asked for it gets it.")]


class NewTopic(Input):
    """A topic to make."""

    name: _Name
    description: _Description = ""
    on_request: _OnRequest = False


class TopicChange(Input):
    """What to change. What is left out stays."""

    name: _Name | UnsetType = UNSET
    description: _Description | UnsetType = UNSET


class TopicItem(Output):
    """What a campaign can be about."""

    id: TopicId
    name: str
    description: str
    on_request: _OnRequest
    created_at: Moment


class TopicPage(Output):
    """Topics, newest first."""

    items: list[TopicItem]
    next_cursor: NextCursor


class TopicChoice(Output):
    """A topic, and whether the contact gets it."""

    topic: TopicId
    name: str
    subscribed: bool
    said: Annotated[bool, Meta(description="It was said for this address; else it follows from "
                               "the topic.")]  # fmt: skip


class ContactTopics(Output):
    """What a contact gets."""

    items: list[TopicChoice]


class TopicWish(Input):
    """Whether a contact wants a topic."""

    topic: TopicId
    subscribed: bool


class ContactTopicsChange(Input):
    """What a contact has said; topics that are not named stay as they are."""

    items: Annotated[list[TopicWish], Meta(max_length=200)]


def _item(one: Topic) -> TopicItem:
    return TopicItem(
        id=ids.type_id(ids.TOPIC, one.id),
        name=one.name,
        description=one.description,
        on_request=one.on_request,
        created_at=one.created_at,
    )


def _told(one: Topic) -> dict[str, Any]:
    return {"name": one.name, "description": one.description, "on_request": one.on_request}


def _change(action: str, one: Topic, before: Any, after: Any) -> Change:
    return Change(action, ids.type_id(ids.TOPIC, one.id), before, after)


async def create_topic(call: Call[NewTopic, None]) -> Answer:
    async with call.app.database.transaction() as tx:
        one = await call.app.topics.create(
            call.workspace_id,
            call.body.name,
            call.body.description,
            on_request=call.body.on_request,
            tx=tx,
        )
        return await call.done(tx, _item(one), _change("topic.create", one, None, _told(one)))


async def list_topics(call: Call[None, PageQuery]) -> TopicPage:
    found = await call.app.topics.page(
        call.workspace_id, before=read_cursor(call.query.cursor), limit=call.query.limit
    )
    return page_of(TopicPage, found, _item, call.query.limit)


async def get_topic(call: Call[None, None]) -> TopicItem:
    return _item(await call.app.topics.get(call.workspace_id, call.ids["topic_id"]))


async def change_topic(call: Call[TopicChange, None]) -> Answer:
    topics, topic_id, body = call.app.topics, call.ids["topic_id"], call.body
    async with call.app.database.transaction() as tx:
        before = await topics.get(call.workspace_id, topic_id, tx)
        after = await topics.change(
            call.workspace_id,
            topic_id,
            name=None if body.name is UNSET else body.name,
            description=None if body.description is UNSET else body.description,
            tx=tx,
        )
        changed = _change("topic.change", after, _told(before), _told(after))
        return await call.done(tx, _item(after), changed)


async def delete_topic(call: Call[None, None]) -> Answer:
    async with call.app.database.transaction() as tx:
        one = await call.app.topics.remove(call.workspace_id, call.ids["topic_id"], tx)
        return await call.done(tx, None, _change("topic.delete", one, _told(one), None))


def _choices(choices: list[Choice]) -> ContactTopics:
    return ContactTopics(
        items=[
            TopicChoice(
                topic=ids.type_id(ids.TOPIC, one.topic.id),
                name=one.topic.name,
                subscribed=one.subscribed,
                said=one.said,
            )
            for one in choices
        ]
    )


async def get_contact_topics(call: Call[None, None]) -> ContactTopics:
    contact = await call.app.contacts.get(call.workspace_id, call.ids["contact_id"])
    return _choices(await call.app.topics.choices(call.workspace_id, contact.address))


async def change_contact_topics(call: Call[ContactTopicsChange, None]) -> Answer:
    contact = await call.app.contacts.get(call.workspace_id, call.ids["contact_id"])
    wanted = {
        ids.parse_type_id(ids.TOPIC, wish.topic, "topic"): wish.subscribed
        for wish in call.body.items
    }
    topics = call.app.topics
    async with call.app.database.transaction() as tx:
        for topic_id in wanted:
            await topics.get(call.workspace_id, topic_id, tx)
        changed = await topics.choose(call.workspace_id, contact.address, wanted, tx)
        after = await topics.choices(call.workspace_id, contact.address, tx)
        changes = [
            Change(
                "topic.choose",
                ids.type_id(ids.TOPIC, topic_id),
                None,
                {"address": contact.address, "subscribed": subscribed},
            )
            for topic_id, subscribed in changed.items()
        ]
        return await call.done(tx, _choices(after), *changes)


ROUTES = (
    Route(
        "POST",
        "/v1/topics",
        create_topic,
        "createTopic",
        TAG,
        "Make a topic",
        scope.CONTACTS_WRITE,
        status=201,
        answer=TopicItem,
        body=NewTopic,
        description="People choose on the preference page which topics they get.",
    ),
    Route(
        "GET",
        "/v1/topics",
        list_topics,
        "listTopics",
        TAG,
        "List topics",
        scope.CONTACTS_READ,
        answer=TopicPage,
        query=PageQuery,
    ),
    Route(
        "GET",
        "/v1/topics/{topic_id:top}",
        get_topic,
        "getTopic",
        TAG,
        "Read a topic",
        scope.CONTACTS_READ,
        answer=TopicItem,
    ),
    Route(
        "PATCH",
        "/v1/topics/{topic_id:top}",
        change_topic,
        "changeTopic",
        TAG,
        "Rename or describe a topic",
        scope.CONTACTS_WRITE,
        answer=TopicItem,
        body=TopicChange,
        errors=(409,),
    ),
    Route(
        "DELETE",
        "/v1/topics/{topic_id:top}",
        delete_topic,
        "deleteTopic",
        TAG,
        "Remove a topic and what people have said about it",
        scope.CONTACTS_WRITE,
        status=204,
        errors=(409,),
    ),
    Route(
        "GET",
        "/v1/contacts/{contact_id:con}/topics",
        get_contact_topics,
        "getContactTopics",
        TAG,
        "Read what a contact gets",
        scope.CONTACTS_READ,
        answer=ContactTopics,
    ),
    Route(
        "PATCH",
        "/v1/contacts/{contact_id:con}/topics",
        change_contact_topics,
        "changeContactTopics",
        TAG,
        "Say what a contact gets",
        scope.CONTACTS_WRITE,
        answer=ContactTopics,
        body=ContactTopicsChange,
        description="It holds for the contact's address, also when the contact is removed and "
        "comes back.",
    ),
)
