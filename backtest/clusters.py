"""Families of trials, found in how their returns move together.

For information beside `backtest.integrity.equivalent_independent_trials`, which is what trials are counted by: thirty variants
of one idea are one cluster, and yet the best of them is expected well above zero without any skill (decision 0002).
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.spatial.distance import squareform

from backtest.integrity import FloatArray, check_returns

IntArray = npt.NDArray[np.int64]

MAX_CLUSTERS = 100


def cluster_trials(returns: npt.ArrayLike) -> IntArray:
    """Group trials by the correlation of their returns, in as many clusters as stand apart best.

    Parameters
    ----------
    returns : array_like of shape (n_obs, n_trials)
        Returns of the trials, observations in rows. A trial without variance correlates with nothing.

    Returns
    -------
    ndarray of shape (n_trials,), int
        Cluster of each trial, numbered from 0 in the order of their first trials; their number is ``labels.max() + 1``. Up to
        two trials are a cluster each, and so are trials equally far from each other. Trials that are all the same are one.

    Raises
    ------
    ValueError
        If `returns` is not 2-D with at least two observations, or is not finite.

    Notes
    -----
    The optimal number of clusters of Lopez de Prado & Lewis [1]_: with the distance ``sqrt((1 - correlation) / 2)``, the
    number whose silhouettes have the largest ratio of mean to standard deviation. They run k-means from many random starts
    and then once more within weak clusters; we cut one tree (average linkage), which needs no chance and finds nested families
    at once. On trials that are all independent no number is better than another, and what comes out means nothing.

    References
    ----------
    .. [1] Lopez de Prado, M. & Lewis, M. J. (2019). Detection of false investment strategies using unsupervised learning
       methods. Quantitative Finance, 19(9), 1555-1565.
    """
    values = check_returns(returns)
    n_trials = values.shape[1]
    if n_trials < 3:
        return np.arange(n_trials)
    distance = _distances(values)
    if distance.max() < 1e-6:
        return np.zeros(n_trials, dtype=np.int64)
    tree = linkage(squareform(distance, checks=False), method="average")
    best, chosen = -math.inf, np.arange(n_trials)
    for n_clusters in range(2, min(n_trials - 1, MAX_CLUSTERS) + 1):
        labels = fcluster(tree, n_clusters, criterion="maxclust") - 1
        if labels.max() == 0:  # trials equally far from each other cannot be cut into so few
            continue
        quality = _silhouette_ratio(distance, labels)
        if quality > best:
            best, chosen = quality, labels
    _, first, labels = np.unique(chosen, return_index=True, return_inverse=True)
    order: IntArray = first.argsort().argsort()[labels].astype(np.int64)
    return order


def _distances(values: FloatArray) -> FloatArray:
    centred = values - values.mean(axis=0)
    norm = np.sqrt((centred**2).sum(axis=0))
    flat = norm <= 1e-12 * np.abs(values).max(axis=0) * np.sqrt(len(values))
    units = np.where(flat, 0.0, centred / np.where(flat, 1.0, norm))
    distance: FloatArray = np.sqrt(np.clip(0.5 * (1.0 - units.T @ units), 0.0, 1.0))
    np.fill_diagonal(distance, 0.0)
    return distance


def _silhouette_ratio(distance: FloatArray, labels: npt.NDArray[np.integer]) -> float:
    """Mean over standard deviation of the silhouettes; that of a trial alone in its cluster is zero."""
    member = np.zeros((len(labels), int(labels.max()) + 1))
    member[np.arange(len(labels)), labels] = 1.0
    size = member.sum(axis=0)
    total = distance @ member
    own_size = size[labels]
    inside = total[np.arange(len(labels)), labels] / np.maximum(own_size - 1.0, 1.0)
    outside = np.where(member > 0.0, np.inf, total / size).min(axis=1)
    reach = np.maximum(inside, outside)
    silhouette = np.where((own_size > 1.0) & (reach > 0.0), (outside - inside) / np.where(reach > 0.0, reach, 1.0), 0.0)
    mean, spread = float(silhouette.mean()), float(silhouette.std())
    if spread > 1e-12:
        return mean / spread
    return math.inf if mean > 0.0 else -math.inf
