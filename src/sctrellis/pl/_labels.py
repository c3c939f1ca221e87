"""Put node labels where they cover least."""

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes

_ROUNDS = 4
# Eight directions round a node; straight ones first, since they read best.
_DIRECTIONS = np.array([(1, 0), (-1, 0), (0, 1), (0, -1), (1, 1), (1, -1), (-1, 1), (-1, -1)], dtype=float)


def place(
    ax: "Axes", texts: "Sequence[Any]", nodes: np.ndarray, radius: np.ndarray, segments: np.ndarray, gap: float = 2.0
) -> None:
    """Move each text, an annotation centred on its node, beside the node to where it covers least.

    Each label in turn takes the place with the smallest cost given all the others: the area shared with nodes and
    labels, then the edges below it. A few rounds suffice for tens of labels.

    Parameters
    ----------
    ax
        The axes, with their final size and limits.
    texts
        Annotations of which the position is an offset in points.
    nodes : (n, 2)
        Node positions in data units.
    radius : (n,)
        Node radii in points.
    segments : (m, 2, 2)
        Both ends of each edge in data units.
    gap
        Points between node and label.
    """
    figure = ax.figure
    points = 72.0 / figure.dpi
    at = ax.transData.transform(nodes) * points
    extents = [text.get_window_extent() for text in texts]
    half = np.array([(extent.width, extent.height) for extent in extents]).reshape(-1, 2) * points / 2
    frame = np.array(ax.get_window_extent().extents) * points
    ends = ax.transData.transform(segments.reshape(-1, 2)).reshape(-1, 2, 2) * points
    share = np.linspace(0.05, 0.95, 25)[:, None, None]
    samples = (ends[:, 0] * (1 - share) + ends[:, 1] * share).reshape(-1, 2)
    discs = np.column_stack([at - radius[:, None], at + radius[:, None]])

    offsets = np.zeros_like(at)
    boxes = np.column_stack([at - half, at + half])
    for _ in range(_ROUNDS):
        for i in range(len(texts)):
            others = np.arange(len(texts)) != i
            moves = _moves(half[i], radius[i] + gap)
            candidates = np.column_stack([at[i] + moves - half[i], at[i] + moves + half[i]])
            cost = (
                _overlap(candidates, discs[others]).sum(axis=1)
                + _overlap(candidates, boxes[others]).sum(axis=1)
                + 3.0 * _inside(candidates, samples)
                + 100.0 * _outside(candidates, frame)
                + 0.2 * np.arange(len(candidates))
            )
            best = int(cost.argmin())
            offsets[i], boxes[i] = moves[best], candidates[best]
    for text, offset in zip(texts, offsets, strict=True):
        text.set_position(tuple(offset))


def _moves(half: np.ndarray, distance: float) -> np.ndarray:
    """Return offsets from a node to the centre of its label, near ones first."""
    diagonal = np.abs(_DIRECTIONS).sum(axis=1, keepdims=True) == 2
    near = _DIRECTIONS * (half + np.where(diagonal, 0.7 * distance, distance))
    # A label above its node may also begin or end there, as beside a vertical edge.
    slid = np.array([(sx * half[0] * 0.6, sy * (half[1] + distance)) for sy in (1, -1) for sx in (1, -1)])
    far = _DIRECTIONS * (half + np.where(diagonal, 0.7, 1.0) * (distance + 6))
    return np.concatenate([near, slid, far])


def _overlap(boxes: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Return the area that each box shares with each other box, in square points."""
    low = np.maximum(boxes[:, None, :2], others[None, :, :2])
    high = np.minimum(boxes[:, None, 2:], others[None, :, 2:])
    return np.clip(high - low, 0, None).prod(axis=2)


def _inside(boxes: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Return how many points each box covers."""
    within = (points[None] >= boxes[:, None, :2]) & (points[None] <= boxes[:, None, 2:])
    return within.all(axis=2).sum(axis=1)


def _outside(boxes: np.ndarray, frame: np.ndarray) -> np.ndarray:
    """Return how far each box sticks out of the frame, in points."""
    low, high = np.clip(frame[:2] - boxes[:, :2], 0, None), np.clip(boxes[:, 2:] - frame[2:], 0, None)
    return low.sum(axis=1) + high.sum(axis=1)
