"""What many tasks have in common."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spreadq_core.errors import PeerError
from spreadq_core.terms import (
    ATTEMPTS_LIMIT,
    DURATION_LIMIT,
    FUNCTION_LIMIT,
    REMEMBERED_LIMIT,
    Terms,
    TermsTable,
    encode,
)

GOOD = Terms("f", "raw", 0, 3, 0, 0, True)


def changed(**fields):
    return msgspec.structs.replace(GOOD, **fields)


@pytest.mark.parametrize(
    "terms",
    [
        GOOD,
        changed(function=""),
        changed(function="ä" * 127),
        changed(priority=9, max_attempts=ATTEMPTS_LIMIT, run_limit=DURATION_LIMIT, expiry=DURATION_LIMIT),
        changed(max_attempts=1, reply=False),
    ],
)
def test_terms_in_range_are_read_as_they_were_written(terms):
    assert terms.fault() == ""
    encoded = encode(terms)
    assert TermsTable().read(encoded) == (encoded, terms)


def test_a_name_that_has_no_form_in_utf8_is_refused():
    assert "has no form in UTF-8" in changed(function="\udcff").fault()


@pytest.mark.parametrize(
    ("terms", "fault"),
    [
        (changed(priority=10), "priority 10: 0 to 9 are allowed"),
        (changed(priority=-1), "priority -1: 0 to 9 are allowed"),
        (changed(max_attempts=0), "max_attempts 0: 1 to 1000 are allowed"),
        (changed(max_attempts=1_001), "max_attempts 1001: 1 to 1000 are allowed"),
        (changed(run_limit=-1), "negative or longer than ten years"),
        (changed(expiry=DURATION_LIMIT + 1), "negative or longer than ten years"),
        (changed(function="ä" * 128), f"more than {FUNCTION_LIMIT} bytes"),
        (changed(codec="c" * 256), f"more than {FUNCTION_LIMIT} bytes"),
    ],
)
def test_terms_out_of_range_are_refused_with_what_is_wrong(terms, fault):
    assert fault in terms.fault()
    with pytest.raises(PeerError, match=fault):
        TermsTable().read(encode(terms))


@given(st.binary())
def test_other_bytes_are_refused(encoded):
    try:
        same, terms = TermsTable().read(encoded)
    except PeerError:
        pass
    else:
        assert same == encoded
        assert terms.fault() == ""


def test_an_encoding_is_one_object_however_often_it_comes():
    table = TermsTable()
    first, terms = table.read(encode(GOOD))
    assert table.read(bytes(bytearray(first))) == (first, terms)
    assert table.read(bytes(bytearray(first)))[0] is first
    assert table.read(bytes(bytearray(first)))[1] is terms


def test_a_table_remembers_so_many_and_no_more():
    table = TermsTable()
    for expiry in range(2 * REMEMBERED_LIMIT):
        table.read(encode(changed(expiry=expiry)))
        assert len(table._known) <= REMEMBERED_LIMIT
