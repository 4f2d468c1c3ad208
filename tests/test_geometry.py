"""A trajectory in weight space: distances, the plane that shows most of it, and what averages count."""

import numpy as np
import pytest
import torch

from mede_core.gwa import average_trajectory, gaussian_weights
from mede_core.lab.geometry import flatten, largest_difference, movement, plane


def walk(points, seed=0):
    """Checkpoints whose weights are the given points, turned into a space of seven dimensions."""
    turned, _ = np.linalg.qr(np.random.default_rng(seed).standard_normal((7, len(points[0]))))
    vectors = torch.tensor(np.asarray(points) @ turned.T)
    return [{"w": vector[:4].view(2, 2), "b": vector[4:]} for vector in vectors]


def test_movement_is_the_distance_walked_and_from_the_start():
    rows = movement(walk([(0.0, 0.0), (3.0, 4.0), (3.0, 0.0)]))
    assert [row["epoch"] for row in rows] == [1, 2, 3]
    assert np.isnan(rows[0]["moved"])
    assert [row["moved"] for row in rows[1:]] == pytest.approx([5, 4])
    assert [row["from_first"] for row in rows] == pytest.approx([0, 5, 3])


def test_the_plane_keeps_distances_of_what_lies_in_it():
    points = np.random.default_rng(1).standard_normal((6, 2))
    found, shown = plane(walk(points))
    assert shown == pytest.approx(1)
    for one in range(6):
        expected = np.linalg.norm(points - points[one], axis=1)
        np.testing.assert_allclose(np.linalg.norm(found - found[one], axis=1), expected, atol=1e-12)


def test_an_average_lies_where_the_averaged_coordinates_lie():
    checkpoints = walk(np.random.default_rng(2).standard_normal((5, 4)))
    shares = gaussian_weights(5, 3.0, 1.0)
    found, shown = plane(checkpoints)
    assert 0 < shown < 1
    full = torch.stack([flatten(checkpoint) for checkpoint in checkpoints])
    axes = torch.linalg.lstsq(full - full.mean(0), torch.tensor(found)).solution  # the projection, recovered
    average = flatten(average_trajectory(checkpoints, shares))
    np.testing.assert_allclose(((average - full.mean(0)) @ axes).numpy(), shares.numpy() @ found, atol=1e-10)


def test_largest_difference_finds_the_one_entry():
    one = {"a": torch.zeros(3), "b": torch.ones(2, 2)}
    other = {"a": torch.tensor([0.0, -0.5, 0.0]), "b": torch.ones(2, 2)}
    assert largest_difference(one, other) == 0.5


def test_a_trajectory_of_two_epochs_is_a_line():
    found, shown = plane(walk([(0.0, 0.0, 1.0), (3.0, 4.0, 1.0)]))
    np.testing.assert_allclose(found, [[-2.5, 0], [2.5, 0]], atol=1e-12)
    assert shown == pytest.approx(1)
