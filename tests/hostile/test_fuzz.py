"""Whatever the bytes are, the decoder says WireError or gives a message; nothing else ever comes out of it."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from bridge_link.bodies import check
from bridge_link.errors import WireError
from bridge_link.wire import FRAMES, MAGIC, Kind, Message, decode, encode
from tests.links.test_golden import GOLDEN, frames_of

VECTORS = [frames_of(one) for group in GOLDEN.values() for one in group]
RAW = st.lists(st.binary(max_size=200), max_size=7)
HEADED = st.tuples(
    st.just(MAGIC),
    st.sampled_from([kind.value for kind in Kind]),
    st.sampled_from([b"m", b"j"]),
    st.just(b"fuzzed-0001"),
    st.binary(max_size=600),
).map(list)


@st.composite
def mutated(draw: st.DrawFn) -> list[bytes]:
    """A golden vector, good or bad, with some bytes changed, taken out, doubled or put in."""
    frames = list(draw(st.sampled_from(VECTORS)))
    for _ in range(draw(st.integers(1, 4))):
        which = draw(st.integers(0, len(frames) - 1)) if draw(st.integers(0, 9)) == 0 else len(frames) - 1
        frame = frames[which][:4096]
        at, end = sorted((draw(st.integers(0, len(frame))), draw(st.integers(0, len(frame)))))
        frames[which] = frame[:at] + draw(st.binary(max_size=8)) + frame[draw(st.sampled_from([at, end])) :]
    return frames


@given(frames=RAW | HEADED | mutated())
@settings(max_examples=1500, deadline=None)
def test_any_bytes_are_a_message_or_a_wire_error(frames: list[bytes]) -> None:
    got = _decoded(frames)
    if isinstance(got, WireError):
        assert got.code in {"malformed", "too_large"}
        assert got.message_id is None or len(frames) == FRAMES
        return
    check(got.body)
    assert _decoded(encode(got)) == got


def _decoded(frames: list[bytes]) -> Message | WireError:
    try:
        return decode(frames)
    except WireError as refused:
        return refused
