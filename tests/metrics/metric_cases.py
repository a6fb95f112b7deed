"""Random predictions and labels of six images of 9 x 11 pixels, some of them invalid, for every kind of metric."""

import numpy as np
import torch
from scipy import ndimage


def computed(metric, prediction, label):
    """Values of a metric that has seen this alone."""
    metric.update(torch.as_tensor(prediction), torch.as_tensor(label))
    return metric.compute()


def soft_map(seed, shape):
    """Smooth noise from 0 to 1."""
    noise = ndimage.gaussian_filter(np.random.default_rng(seed).random(shape), 1.5)
    return (noise - noise.min()) / np.ptp(noise)


def class_ids(classes=6):
    label = torch.randint(0, classes + 1, (6, 9, 11))
    return torch.randint(0, classes, (6, 9, 11)), torch.where(label == classes, 255, label)


def depths():
    label = 10 * torch.rand(6, 1, 9, 11)
    return 10 * torch.rand(6, 1, 9, 11), torch.where(label < 2, 0, label)


def vectors():
    return torch.randn(6, 3, 9, 11), torch.where(torch.rand(6, 1, 9, 11) < 0.2, 0, torch.randn(6, 3, 9, 11))


def binary():
    label = torch.randint(0, 3, (6, 9, 11))
    return torch.rand(6, 9, 11), torch.where(label == 2, 255, label)
