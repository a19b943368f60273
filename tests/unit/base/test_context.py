"""The request context, ours and oslo.context's."""

import pytest
from hypothesis import given, strategies as st
from oslo_context.context import RequestContext

from common.base.context import Context

words = st.text(min_size=1, max_size=10)


@given(
    st.builds(
        Context,
        request_id=words,
        user_id=st.none() | words,
        project_id=st.none() | words,
        is_admin=st.booleans(),
        roles=st.lists(words, max_size=3).map(tuple),
        others=st.dictionaries(words.map("x_{}".format), words, max_size=3),
    )
)
def test_a_context_comes_back_as_it_was(ctx: Context) -> None:
    assert Context.from_dict(ctx.to_dict()) == ctx


def test_oslo_s_context_is_read_and_its_token_goes_no_further() -> None:
    theirs = RequestContext(user_id="u1", project_id="p1", roles=["reader"], is_admin=True, auth_token="SECRET").to_dict()
    theirs |= {"service_catalog": [{"url": "SECRET"}], "client_timeout": 2}
    ctx = Context.from_dict(theirs)
    assert (ctx.user_id, ctx.project_id, ctx.roles, ctx.is_admin) == ("u1", "p1", ("reader",), True)
    assert ctx.request_id == theirs["request_id"]
    assert not {"auth_token", "service_catalog", "client_timeout"} & ctx.to_dict().keys()
    assert "SECRET" not in repr(ctx)


def test_oslo_s_context_reads_ours() -> None:
    read = RequestContext.from_dict(Context(user_id="u1", project_id="p1", roles=("reader",), is_admin=True).to_dict())
    assert (read.user_id, read.project_id, read.roles, read.is_admin) == ("u1", "p1", ["reader"], True)


@pytest.mark.parametrize("said", ["false", "true", 1, None, [0]])
def test_only_true_is_an_administrator(said: object) -> None:
    assert Context.from_dict({"is_admin": said}).is_admin is False


def test_a_context_without_keys_gets_a_request_id_of_its_own() -> None:
    first, second = Context.from_dict({}), Context.from_dict({})
    assert first.request_id.startswith("req-")
    assert first.request_id != second.request_id


def test_the_nearer_deadline_wins_and_may_be_taken_off() -> None:
    ctx = Context()
    assert ctx.until(5).deadline == ctx.until(5).until(9).deadline == ctx.until(9).until(5).deadline == 5
    assert ctx.until(5).without_deadline() == ctx
    assert "deadline" not in ctx.until(5).to_dict()
    assert ctx.elevated().is_admin
    assert not ctx.is_admin
