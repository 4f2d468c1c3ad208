"""Which frames make a clip: bounds, symmetry, the published windows."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from mede_core.video.clips import dense_indices, uniform_indices

counts = st.integers(1, 400)
clip_lengths = st.integers(1, 40)


@given(counts, clip_lengths, st.integers(1, 4), st.data())
def test_uniform_indices_of_the_reversed_video_are_the_same_pictures(total, num_frames, views, data):
    view = data.draw(st.integers(0, views - 1))
    forward = uniform_indices(total, num_frames, view=view, views=views)
    backward = total - 1 - uniform_indices(total, num_frames, view=views - 1 - view, views=views)[::-1]
    middle = (total / 2 - 1, total / 2)  # no symmetric choice exists between these two
    different = forward != backward
    assert all({a, b} == set(middle) for a, b in zip(forward[different], backward[different], strict=True))
    assert different.sum() <= 1


@given(counts, clip_lengths, st.integers(1, 4))
def test_uniform_views_interleave_and_their_frames_lie_in_their_segments(total, num_frames, views):
    whole, parts = uniform_indices(total, num_frames * views), num_frames * views
    centers = (np.arange(parts) + 0.5) * total / parts - 0.5
    assert np.abs(whole - centers).max() <= 0.5 + 1e-9
    assert (whole.shape, whole.dtype) == ((parts,), np.int64) and whole[0] >= 0 and whole[-1] < total
    for k in range(views):
        assert np.array_equal(uniform_indices(total, num_frames, view=k, views=views), whole[k::views])


@given(counts, clip_lengths, st.integers(0, 99))
def test_random_uniform_indices_stay_in_their_segments_and_repeat_with_the_seed(total, num_frames, seed):
    first, second = (uniform_indices(total, num_frames, generator=np.random.default_rng(seed)) for _ in range(2))
    assert np.array_equal(first, second)
    edges = np.arange(num_frames + 1) * total / num_frames
    assert (first >= np.floor(edges[:-1])).all()
    assert (first < np.ceil(edges[1:] + 1e-9)).all()
    assert first.max() < total


def dense(total, fps, *args, **how):
    return dense_indices(np.arange(total) / fps, fps, *args, **how)


def test_dense_windows_of_the_published_protocol():
    # 8 frames, rate 16, 30 fps, 300 frames: a window of 128 frames that can begin at 0 .. 172
    assert dense(300, 30, view=0, views=3).tolist() == [0, 18, 36, 54, 72, 90, 108, 127]
    assert dense(300, 30, view=1, views=3)[[0, -1]].tolist() == [86, 213]
    assert dense(300, 30, view=2, views=3)[[0, -1]].tolist() == [172, 299]
    assert np.array_equal(dense(300, 30), dense(300, 30, view=1, views=3))


@given(st.integers(129, 900), st.integers(0, 99))
def test_at_30_frames_a_second_the_window_is_spaced_in_whole_frames(total, seed):
    begin = np.random.default_rng(seed).random() * (total - 128)
    expected = np.floor(np.linspace(begin, begin + 127, 8) + 1e-6)
    assert np.array_equal(dense(total, 30, generator=np.random.default_rng(seed)), expected)


steps = st.lists(st.sampled_from([1 / 120, 0.017, 1 / 30, 0.04, 0.2, 1.0, 5.0]), min_size=1, max_size=300)


@given(steps | st.tuples(st.sampled_from([1 / 120, 0.02, 1 / 15, 1.0]), st.integers(1, 400)), st.integers(0, 2))
def test_dense_frames_are_those_shown_at_the_moments_whatever_the_steps(steps, view):
    if isinstance(steps, tuple):
        steps = [steps[0]] * steps[1]
    times = 0.053 + np.cumsum([0, *steps])
    fps = len(steps) / (times[-1] - times[0])
    free = max(times[-1] - times[0] + 1 / fps - 128 / 30, 0)
    moments = times[0] + free * view / 2 + np.arange(8) * 127 / 7 / 30
    chosen, end = dense_indices(times, fps, view=view, views=3), np.append(times[1:], np.inf)
    tiny = 2e-6 / fps
    assert (times[chosen] <= moments + tiny).all() and (moments < end[chosen] + tiny).all()
    assert chosen.dtype == np.int64 and (np.diff(chosen) >= 0).all()


def test_a_video_shorter_than_the_window_repeats_its_last_frame():
    assert dense(50, 30).tolist() == [0, 18, 36, 49, 49, 49, 49, 49]
    assert dense_indices(np.zeros(1), 0.0).tolist() == [0] * 8  # a picture has no rate


# 8 frames, rate 16, 30 fps, 300 frames: the indices that shared protocol notes print for the peers' decoders.
def test_pyav_views_are_the_printed_ones():
    view0, view1, view2 = (dense(300, 30, view=k, views=3, compat="pyav") for k in range(3))
    assert view0.tolist() == [0, 18, 36, 54, 72, 90, 108, 112]
    assert (view1 - 62).tolist() == view0.tolist()
    assert (view2 - 125).tolist() == view0.tolist()  # 2/3 of 188; the window is 16 * 7 frames and one more
    assert dense(300, 30, compat="pyav").tolist() == view0.tolist()  # one view begins at 0


def test_torchvision_views_are_the_printed_ones_and_begin_at_whole_frames():
    views = [dense(300, 30, view=k, views=3, compat="torchvision") for k in range(3)]
    assert views[0].tolist() == [0, 18, 36, 54, 72, 90, 108, 127]
    assert [view[0] for view in views] == [0, 86, 172]  # 0, 1/2, 1 of 172
    assert [view[-1] for view in views] == [127, 213, 299]
    ours = [dense(301, 30, view=k, views=3) for k in range(3)]
    theirs = [dense(301, 30, view=k, views=3, compat="torchvision") for k in range(3)]
    assert [view[0] for view in theirs] == [0, 86, 172]  # twice the cut half of 173: the last view is one frame early
    assert [view[0] for view in ours] == [0, 86, 173]
    assert ours[1].tolist() != theirs[1].tolist()  # from 86.5 other frames are nearest below


@given(counts, st.floats(1, 120), clip_lengths, st.sampled_from(["pyav", "torchvision"]), st.data())
def test_compat_indices_stay_inside_and_ascend(total, fps, num_frames, compat, data):
    views = data.draw(st.integers(1, 5))
    view = data.draw(st.integers(0, views - 1))
    indices = dense(total, fps, num_frames, view=view, views=views, compat=compat)
    assert indices.shape == (num_frames,)
    assert indices.min() >= 0 and indices.max() < total
    assert (np.diff(indices) >= 0).all()
